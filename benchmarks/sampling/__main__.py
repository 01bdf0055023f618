"""Runs the sampling benchmark: the engine's ceiling, Retort, and the peers from the package index, each in its venv.

`python -m benchmarks.sampling [FIGURE ...]`; without names, all of them. One client at a time, each with an engine
of its own; all of them share this machine's cores with it.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, Figure, keep
from benchmarks.sampling.engine import latency_of
from pipeline.progress import say

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VENVS = ROOT / "runs/benchmark-venvs"
PEERS = {
    "datatrove": ("datatrove==0.10.1", "orjson==3.13.0", "httpx==0.28.1", "aiofiles", "aiosqlite", "xxhash"),
    "curator": ("bespokelabs-curator",),
    "distilabel": ("distilabel==1.5.3", "openai==3.54.0", "requests"),
}
"""What each peer's venv is made of; curator's own requirements name the rest."""
COUNT = 20_000
LATE_COUNT = 8_000
"""With a median latency of half a second, 64 at once: a little over a minute."""
MEDIAN, SIGMA, AT_ONCE = 0.3, 1.0, 64
LIMIT_SECONDS = 1800
COMMAND = "make bench-sampling"
GOAL = 8.0
"""Times the best peer (issue of the sampling stage)."""


@contextmanager
def engine(*options: str) -> Iterator[str]:
    """Serve the stand-in engine; yield its URL up to and with /v1."""
    command = [sys.executable, str(HERE / "engine.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def measured(client: str, url: str, count: int, concurrency: int, stream: bool = False) -> dict[str, Any] | None:
    """Return what a client took, None where it failed or took longer than half an hour; its words are kept in runs/."""
    python = sys.executable if client in ("retort", "driver") else str(venv(client))
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as out:
        command = [python, str(HERE / "clients.py"), client, url, str(count), str(concurrency), out]
        log = VENVS / f"{client}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as errors:
            try:
                done = subprocess.run(
                    [*command, *(["stream"] if stream else [])],
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    timeout=LIMIT_SECONDS,
                    check=False,
                    cwd=ROOT,
                )
            except subprocess.TimeoutExpired:
                say(f"{client}: not done after {LIMIT_SECONDS} s")
                return None
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        say(f"{client}: failed, see {log}")
        return None
    if found["completions"] != count:
        say(f"{client}: {found['completions']} of {count} answers")
        return None
    rate = count / found["seconds"]
    say(f"{client}, {concurrency} at once: {rate:.0f}/s, {1000 * found['cpu'] / count:.2f} CPU s per 1,000")
    return found


def venv(client: str) -> Path:
    """Return the Python of a peer's venv, made from the package index where it is not there."""
    python = VENVS / client / "bin/python"
    if not python.exists():
        say(f"{client}: making its venv")
        subprocess.run([sys.executable, "-m", "venv", str(VENVS / client)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS[client]], check=True)
    return python


def whole_answers(concurrency: int) -> list[Figure]:
    """Whole answers without latency: completions a second, and CPU seconds of the client per 1,000."""
    found = {}
    for client in ("retort", *PEERS):
        with engine() as url:
            found[client] = measured(client, url, COUNT, concurrency)
    ours = found.pop("retort")
    assert ours is not None, "Retort's own client failed"
    rates = {client: COUNT / one["seconds"] for client, one in found.items() if one}
    costs = {client: 1000 * one["cpu"] / COUNT for client, one in found.items() if one}
    best, cheapest = max(rates, key=lambda name: rates[name]), min(costs, key=lambda name: costs[name])
    rate, cost = COUNT / ours["seconds"], 1000 * ours["cpu"] / COUNT
    figures = [
        Figure(f"completions {concurrency}", rate, "1/s", COMMAND, best, rates[best], rate / rates[best], GOAL),
        Figure(f"cpu {concurrency}", cost, "s/1,000", COMMAND, cheapest, costs[cheapest], costs[cheapest] / cost, GOAL),
    ]
    for client, one in found.items():
        figures.append(Figure(f"completions {concurrency}: {client}", rates.get(client), "1/s", COMMAND))
        figures.append(Figure(f"cpu {concurrency}: {client}", costs.get(client), "s/1,000", COMMAND))
        if one is None:
            say(f"{client} at {concurrency}: not run to its end")
    return figures


def streamed(concurrency: int) -> list[Figure]:
    """The same in chunks of 16 tokens, ours alone: no peer streams."""
    with engine() as url:
        ours = measured("retort", url, COUNT, concurrency, stream=True)
    assert ours is not None
    return [
        Figure(f"streamed {concurrency}", COUNT / ours["seconds"], "1/s", COMMAND),
        Figure(f"streamed cpu {concurrency}", 1000 * ours["cpu"] / COUNT, "s/1,000", COMMAND),
    ]


def ceilings() -> list[Figure]:
    """The engine's own ceiling, which no client can pass on this machine."""
    figures = []
    for mode in ((), ("stream",)):
        with engine() as url:
            command = [sys.executable, str(HERE / "ceiling.py"), url, str(COUNT), "256", *mode]
            rate = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        figures.append(Figure(f"engine's ceiling{', streamed' if mode else ''}", rate, "1/s", COMMAND))
    return figures


def latency() -> list[Figure]:
    """64 in flight with long-tailed latency: the share of the bound that no client with 64 in flight can pass."""
    with engine("--median", str(MEDIAN), "--sigma", str(SIGMA)) as url:
        ours = measured("retort", url, LATE_COUNT, AT_ONCE)
    assert ours is not None
    bound = bound_of([latency_of(number, MEDIAN, SIGMA) for number in range(LATE_COUNT)], AT_ONCE)
    return [Figure("latency bound, 64 in flight", bound / ours["seconds"], "share", COMMAND, goal=0.98)]


def bound_of(latencies: list[float], at_once: int) -> float:
    """Return the seconds that so many at once take, in order, each next one begun the moment that one ends."""
    ends = latencies[:at_once]
    heapq.heapify(ends)
    for late in latencies[at_once:]:
        heapq.heapreplace(ends, ends[0] + late)
    return max(ends)


def memory() -> list[Figure]:
    """Peak memory of the driver at 10,000 and at 200,000 requests."""
    peaks = []
    for count in (10_000, 200_000):
        with engine() as url:
            found = measured("driver", url, count, 1024)
            assert found is not None
            peaks.append(found["peak_mb"])
    return [
        Figure("peak memory 10000", peaks[0], "MB", COMMAND),
        Figure("peak memory 200000", peaks[1], "MB", COMMAND, ratio=peaks[0] / peaks[1], goal=0.9),
    ]


PARTS = {
    "ceilings": ceilings,
    "1024": lambda: whole_answers(1024),
    "10000": lambda: whole_answers(10_000),
    "streamed": lambda: streamed(1024) + streamed(10_000),
    "latency": latency,
    "memory": memory,
}


def main(names: list[str]) -> int:
    """Run the parts named, keep results/sampling.json with those of before for the others; return the exit status."""
    (ROOT / "runs").mkdir(exist_ok=True)
    figures = [figure for name in names or PARTS for figure in PARTS[name]()]
    path = FOLDER / "sampling.json"
    fresh = {figure.figure for figure in figures}
    before = json.loads(path.read_text()) if path.exists() else []
    kept = [
        Figure(**{key: value for key, value in row.items() if key != "machine"})
        for row in before
        if row["figure"] not in fresh
    ]
    print(keep("sampling", kept + figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
