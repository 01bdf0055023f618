"""Sampling against an engine that misbehaves in every way at once, and under kills: exactly what was asked for."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.parts import read_rows
from teacher.sampling import held_ids

ROOT = Path(__file__).resolve().parent.parent.parent
FAULTS = "500=0.05,429=0.05,429-after=0.05,cut=0.05,close=0.05,empty=0.05,hang=0.01,stall=0.01,broken=0.05,error=0.05"
Retort = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("stream", ["true", "false"])
def test_every_fault_at_once_on_three_engines_one_of_which_dies(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort, stream: str
) -> None:
    engines = [
        standin("--faults", FAULTS, "--seed", "1", "--latency", "0.01"),
        standin("--faults", FAULTS, "--seed", "2", "--limit", "20", "--slow-start", "1"),
        standin("--faults", FAULTS, "--seed", "3", "--latency", "0.02", "--die-after", "200"),
    ]
    urls = ", ".join(f'"{engine.url}"' for engine in engines)
    done = retort(
        "run", recipe(engines[0].url), "--until", "verify", f"teacher.endpoints=[{urls}]", f"sampling.stream={stream}",
        "sampling.samples=10", "sampling.attempts=60", "sampling.stall_s=1", "sampling.timeout_s=3",
        "sampling.patience_s=30",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(read_rows(tmp_path / "runs/small/traces"))
    assert len({row["id"] for row in rows}) == len(rows) == 600
    for row in rows:
        assert row["text"].startswith("<think>\nI add the numbers: ") and row["text"].endswith("}.")
    assert engines[2].process.poll() == 1


@pytest.mark.slow
def test_20_kills_lose_nothing_double_nothing_and_waste_only_what_was_in_flight(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path]
) -> None:
    at_once = 32
    engine = standin("--latency", "0.2", "--wrong", "0.3")
    command = [
        *(sys.executable, "-m", "pipeline.cli", "run", str(recipe(engine.url)), "--until", "traces"),
        *(f"sampling.concurrency={at_once}", "sampling.keep=2", "sampling.samples=40", "sampling.hopeless=0.0"),
        'filter.rules=[{rule="long_paragraph", max_chars=1}]',  # nothing is ever kept: all 40 are tried
    ]
    pace, killed = random.Random(5), 0
    while killed < 20:
        with subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(pace.uniform(1.5, 6.0))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            assert process.returncode == -signal.SIGKILL, "it came to its end before 20 kills: make the run longer"
    held = {row["id"] for row in read_rows(tmp_path / "runs/small/traces")}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = list(read_rows(tmp_path / "runs/small/traces"))
    ids = {row["id"] for row in rows}
    assert len(ids) == len(rows) == 60 * 40
    assert held <= ids
    assert engine.counts()["requests"] <= 60 * 40 + killed * at_once


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of a size in a new folder, of which a test may need more later."""
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_sampling_with_one_line_and_loses_nothing_written(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort
) -> None:
    with small_disk(tmp_path / "small-disk", "1200k") as small:
        engine = standin()
        path = recipe(engine.url)
        asked = ["run", path, "--until", "traces", "--run", small / "run", "sampling.samples=60", "sampling.keep=0"]
        done = retort(*asked)
        assert done.returncode == 2
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(("retort: no disk space left while writing ", "retort: the disk of "))
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=60m", str(small)], check=True)
        written, before = len(held_ids(small / "run/traces")), engine.counts()["answered"]
        assert 0 < written <= before
        done = retort(*asked)
        assert done.returncode == 0, done.stderr
        rows = list(read_rows(small / "run/traces"))
        assert len({row["id"] for row in rows}) == len(rows) == 3600
        # What was written before was not asked for again.
        assert engine.counts()["answered"] == before + 3600 - written


@pytest.mark.parametrize("keep", ["0", "2"])
def test_a_disk_that_is_nearly_full_stops_the_asking_and_loses_nothing_at_all(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort, keep: str
) -> None:
    with small_disk(tmp_path / "small-disk", "400m") as small:
        engine = standin("--latency", "0.2")
        path = recipe(engine.url)
        asked = [
            *("run", path, "--until", "traces", "--run", small / "run", "sampling.concurrency=8"),
            *("sampling.samples=20", f"sampling.keep={keep}", "sampling.hopeless=0.0"),
            'filter.rules=[{rule="long_paragraph", max_chars=1}]',  # nothing is ever kept: all 20 are tried
        ]
        with ThreadPoolExecutor() as beside:
            running = beside.submit(retort, *asked)
            while engine.counts()["answered"] < 50:
                time.sleep(0.05)
            # Another program takes the disk.
            filling = small / "others"
            filling.write_bytes(b"x" * (shutil.disk_usage(small).free - 6_000_000))
            done = running.result()
        assert done.returncode == 2
        assert "nearly full (" in (last := done.stderr.strip().splitlines()[-1])
        assert last.startswith(f"retort: the disk of {small}/run/traces is ")
        came = engine.counts()["answered"]
        assert 50 <= came < 1200
        filling.unlink()
        done = retort(*asked)
        assert done.returncode == 0, done.stderr
        # Nothing that came back was asked for a second time.
        assert engine.counts()["answered"] == len(list(read_rows(small / "run/traces"))) == 60 * 20
