"""The data stages as a user runs them, against a stand-in engine: kill, resume, change a setting, break things."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.parts import read_rows

ROOT = Path(__file__).resolve().parents[2]
Retort = Callable[..., subprocess.CompletedProcess[str]]


def manifest(run: Path, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / folder / "manifest.json").read_text())
    return found


def ids(folder: Path) -> list[str]:
    return sorted(row["id"] for row in read_rows(folder, ["id"]))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def test_the_road_to_a_dataset(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    engine = standin("--wrong", "0.4")
    path = recipe(engine.url)
    done = retort("run", path, "--until", "dataset")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/small"
    traces, verdicts = manifest(run, "traces"), manifest(run, "verdicts")
    accepted, dataset = manifest(run, "accepted"), manifest(run, "dataset")
    assert set(traces) >= {
        *("stage", "complete", "in", "kept", "dropped", "seconds", "peak_rss_mb", "versions", "inputs", "settings_hash")
    }
    assert (traces["in"], traces["kept"]) == (180, 180)
    facts = verdicts["facts"]
    assert facts["correct"] + facts["wrong"] + facts["undecided"] == 180
    assert 40 < facts["wrong"] < 110
    assert accepted["kept"] == facts["correct"]
    assert accepted["dropped"] == {"wrong": facts["wrong"]}
    assert dataset["in"] == accepted["kept"] == dataset["kept"] + dataset["dropped"]["over_max_per_problem"]
    assert len(ids(run / "rejected")) == facts["wrong"]

    import datasets

    rows = datasets.load_dataset(str(run / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == dataset["kept"]
    assert rows[0]["messages"][-1]["content"].startswith("<think>\nI add the numbers")
    assert rows[0]["answer"] in rows[0]["messages"][-1]["content"]
    rejected = datasets.load_dataset(str(run / "dataset"), "rejected", split="train", cache_dir=str(tmp_path / "cache"))
    assert set(rejected["reason"]) == {"wrong"}

    before = engine.counts()["requests"]
    again = retort("run", path, "--until", "dataset")
    assert again.returncode == 0
    assert again.stderr.count("up to date") == 5
    assert engine.counts()["requests"] == before

    one = ids(run / "accepted")[0]
    shown = retort("show", run, one[:12])
    assert "verdict: correct by" in shown.stdout
    assert "fate: accepted" in shown.stdout
    assert "complete" in retort("status", run).stdout


def test_kill_9_anywhere_ends_in_the_same_dataset(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    engine = standin("--wrong", "0.4", "--latency", "0.15")
    path = recipe(engine.url)
    assert retort("run", path, "--until", "dataset", "--run", tmp_path / "whole").returncode == 0
    asked = engine.counts()["requests"]
    pace = random.Random(5)
    killed = 0
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "run",
        str(path),
        "--until",
        "dataset",
        "--run",
        str(tmp_path / "cut"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    while True:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        try:
            # Longer from try to try, so that every stage is reached and killed in.
            assert process.wait(pace.uniform(0.3, 0.9) + 0.4 * killed) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        assert killed < 60
    assert killed >= 3
    assert ids(tmp_path / "cut/traces") == ids(tmp_path / "whole/traces")
    # What was in flight at a kill is asked again, nothing else.
    assert engine.counts()["requests"] - asked <= asked + 16 * killed
    rows = [sorted(r["uuid"] for r in read_rows_of(tmp_path / run / "dataset/data")) for run in ("cut", "whole")]
    assert rows[0] == rows[1]


def read_rows_of(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("train-*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_stages_without_sampling_give_the_same_bytes(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    path = recipe(standin("--wrong", "0.4").url)
    run = tmp_path / "runs/small"
    assert retort("run", path, "--until", "dataset").returncode == 0
    before = {name: contents(run / name) for name in ("problems", "verdicts", "accepted", "rejected", "dataset")}
    for name in before:
        for file in (run / name).glob("manifest.json"):
            file.unlink()
    done = retort("run", path, "--until", "dataset")
    assert done.returncode == 0, done.stderr
    assert {name: contents(run / name) for name in before} == before


def test_a_changed_filter_redoes_only_what_depends_on_it(
    tmp_path: Path, standin: Any, recipe: Any, retort: Retort
) -> None:
    path = recipe(standin("--wrong", "0.4").url)
    run = tmp_path / "runs/small"
    assert retort("run", path, "--until", "dataset").returncode == 0
    change = 'filter.rules=[{rule="long_paragraph", max_chars=30}]'
    stale = retort("filter", path, change)
    assert stale.returncode == 2
    assert f"{Path('runs/small/accepted')} was built from other settings or inputs (filter.rules" in stale.stderr
    assert (
        f"'retort run {path}' rebuilds it and all that depends on it, keeping the old result beside it" in stale.stderr
    )
    assert "'retort filter" in stale.stderr
    assert "--rebuild' rebuilds this stage alone; or --run DIR starts another run" in stale.stderr
    assert stale.stderr.count("\n") == 1

    kept_before = manifest(run, "accepted")["kept"]
    done = retort("run", path, "--until", "dataset", change)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.endswith("up to date")] == [
        "problems: up to date",
        "traces: up to date",
        "verify: up to date",
    ]
    assert manifest(run, "accepted")["kept"] < kept_before
    assert manifest(run, "accepted")["dropped"]["long_paragraph"] > 0
    (old,) = run.glob("accepted.*")
    assert manifest(run, old.name)["kept"] == kept_before
    back = retort("run", path, "--until", "dataset")
    assert back.returncode == 0
    assert manifest(run, "accepted")["kept"] == kept_before


def test_max_tokens_keeps_the_pool_and_temperature_adds_to_it(
    tmp_path: Path, standin: Any, recipe: Any, retort: Retort
) -> None:
    engine = standin()
    path = recipe(engine.url)
    run = tmp_path / "runs/small"
    assert retort("traces", path).returncode == 2
    assert retort("run", path, "--until", "traces").returncode == 0
    pool = ids(run / "traces")
    assert len(pool) == 180
    same = retort("traces", path, "sampling.max_tokens=99")
    assert same.stderr == "traces: up to date\n"
    assert engine.counts()["requests"] == 180
    more = retort("traces", path, "sampling.temperature=1.0")
    assert more.returncode == 0, more.stderr
    assert len(ids(run / "traces")) == 360
    assert set(pool) < set(ids(run / "traces"))
    five = retort("traces", path, "sampling.samples=5")
    assert five.returncode == 0
    assert len(ids(run / "traces")) == 480


def test_a_missing_input_names_the_ways_out(tmp_path: Path, recipe: Any, retort: Retort) -> None:
    done = retort("verify", recipe("http://127.0.0.1:9/v1"))
    assert done.returncode == 2
    assert done.stderr == (
        "retort: 'verify' needs the stage 'problems', which is not complete in runs/small: "
        "run 'retort problems' first; or let 'retort run' do all that is missing\n"
    )


def test_a_broken_row_is_set_aside_and_named(tmp_path: Path, sums: Path, recipe: Any, retort: Retort) -> None:
    with open(sums, "a") as file:
        file.write('{"question": "cut off\n{"question": "no reference"}\n[1, 2]\n')
    done = retort("problems", recipe("http://127.0.0.1:9/v1"))
    assert done.returncode == 0
    assert "problems: 3 bad rows set aside in runs/small/problems/bad_rows.jsonl" in done.stderr
    found = manifest(tmp_path / "runs/small", "problems")
    assert (found["in"], found["kept"]) == (63, 60)
    assert found["dropped"] == {"broken JSON": 1, "no reference in column 'answer'": 1, "not a JSON object": 1}
    bad = [json.loads(line) for line in (tmp_path / "runs/small/problems/bad_rows.jsonl").read_text().splitlines()]
    assert [row["where"] for row in bad] == [f"{sums}:{line}" for line in (61, 62, 63)]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "problems.path=nowhere.jsonl",
            "no file at problems.path = nowhere.jsonl: correct the path (it is read from the current folder)",
        ),
        ("problems.question=frage", "gave no problem out of 60 rows (first: "),
        ("sampling.temperature=inf", "sampling.temperature = Infinity: input should be a finite number"),
        ("teacher.endpoints=['localhost:8000/v1']", "'localhost:8000/v1' must begin with http:// or https://"),
        ('filter.rules=[{rule=["a"]}]', "rule 1: no rule '['a']'"),
        ('filter.rules=[{rule="repetition", ngram=0}]', "'ngram' must be a whole number above 0, not 0"),
        ("sampling.temprature=1", "sampling.temprature = 1: no such key; did you mean 'temperature'?"),
    ],
)
def test_bad_settings_are_one_line(override: str, words: str, recipe: Any, retort: Retort) -> None:
    done = retort("problems", recipe("http://127.0.0.1:9/v1"), override)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dead_endpoint_a_wrong_key_and_a_missing_key(
    tmp_path: Path, standin: Any, recipe: Any, retort: Retort
) -> None:
    path = recipe("http://127.0.0.1:9/v1")
    assert retort("problems", path).returncode == 0
    dead = retort("traces", path)
    assert dead.returncode == 2
    last = dead.stderr.splitlines()[-1]
    assert last.startswith("retort: no engine answers at http://127.0.0.1:9/v1 for ")
    assert last.endswith(
        "start it and run the same command again: what finished is kept; or correct teacher.endpoints; "
        "or set teacher.endpoints=[] to let Retort serve teacher.model itself"
    )
    keyed = standin("--key", "right")
    missing = retort("traces", path, f"teacher.endpoints=['{keyed.url}']", "teacher.api_key_env=NO_SUCH_KEY")
    assert missing.stderr == (
        "retort: teacher.api_key_env names the environment variable NO_SUCH_KEY, which is not set: "
        "export NO_SUCH_KEY=...; or remove teacher.api_key_env where the engine asks for no key\n"
    )
    wrong = retort("traces", path, f"teacher.endpoints=['{keyed.url}']", "teacher.api_key_env=A_KEY", A_KEY="wrong")
    assert "refuses the key (HTTP 401: invalid api key): set the environment variable A_KEY" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    right = retort("traces", path, f"teacher.endpoints=['{keyed.url}']", "teacher.api_key_env=A_KEY", A_KEY="right")
    assert right.returncode == 0, right.stderr
    assert "right" not in (tmp_path / "runs/small/recipe.json").read_text()


def test_a_run_in_use_is_refused(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    path = recipe(standin("--latency", "2").url)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", str(path), "--until", "traces"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (tmp_path / "runs/small/traces/journal.sqlite").exists():
            time.sleep(0.05)
        second = retort("run", path)
        assert second.returncode == 2
        assert second.stderr.startswith(f"retort: runs/small is in use by process {first.pid}: wait for it; or stop it")
    finally:
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=20)
    assert first.returncode == 130
    assert said.endswith("retort: stopped; the same command goes on from here\n")


def test_publishing_says_what_would_go_and_refuses_what_is_not_whole(
    tmp_path: Path, standin: Any, recipe: Any, retort: Retort
) -> None:
    path = recipe(standin().url)
    early = retort("publish", path, "--repo", "me/small", "--dry-run")
    assert early.returncode == 2
    assert "the stage 'problems' is not complete in runs/small: nothing is published" in early.stderr
    assert retort("run", path, "--until", "dataset").returncode == 0
    dry = retort("publish", path, "--repo", "me/small", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines() == [
        "README.md",
        "data/rejected-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    nameless = retort("publish", path)
    assert "no repository is named to publish to: add --repo OWNER/NAME" in nameless.stderr
    # The real client against a port where no Hub listens.
    away = retort("publish", path, "--repo", "me/small", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_x")
    assert away.returncode == 2
    assert "the Hub did not take me/small" in away.stderr.splitlines()[-1]
    assert "Traceback" not in away.stderr
