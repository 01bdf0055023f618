"""What sampling says of itself while it runs, what rented GPUs cost, and replicas that are given up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.engine import Endpoint
from pipeline.pace import Pace
from pipeline.records import Problem, State
from pipeline.tally import Tally
from teacher.asking import Adaptive
from teacher.cost import Price, Spent
from teacher.live import Live
from teacher.policy import Plan
from teacher.replicas import RESTARTS, Engine, Replica

ONE, TWO = Endpoint("http://one:8000/v1", "m"), Endpoint("http://two:8000/v1", "m")


def problems(count: int) -> list[Problem]:
    return [
        Problem.of(
            [{"role": "user", "content": f"{n}?"}],
            domain="math", source="s", license="MIT", reference="1", verifier="math",
        )
        for n in range(count)
    ]  # fmt: skip


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_note_tells_speed_yield_cost_time_left_and_each_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock(monkeypatch)
    live = Live(lambda tally: Spent(0, 0.0, tally.completion_tokens / 1000), canary=0)
    asked = Adaptive(problems(10), Plan(2, 4, 0.05), 0.2, lambda problem, number: None)  # type: ignore[arg-type,return-value]
    paces = [Pace(ONE, 64, in_flight=7), Pace(TWO, 64, in_flight=5)]
    tally = Tally()
    live.note(tally, paces, asked)
    now[0] += 10
    tally.finished, tally.completion_tokens = 30, 4_000
    assert live.note(tally, paces, asked).startswith("3.0 traces/s, 400 tokens/s; 0 of 20 kept; $4.00; ")
    for n, problem in enumerate(asked.problems[:4]):
        asked.held(problem.id, 0)
        asked.judged(problem.id, State.CORRECT if n else State.WRONG, None)
    assert live.note(tally, paces, asked) == (
        "3.0 traces/s, 400 tokens/s; 3 of 20 kept (math 75%); at most 57 s left; $4.00; "
        "12 in flight (one:8000 7/32, two:8000 5/32)"
    )
    # Speeds are those of the last minute: after one without a trace nothing is left of them.
    for _ in range(7):
        now[0] += 10
        note = live.note(tally, paces, asked)
    assert note.startswith("0.0 traces/s, 0 tokens/s; 3 of 20 kept (math 75%); $4.00")


def test_a_note_names_the_engines_that_are_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch)
    live = Live(lambda tally: Spent(0, 0.25, None), canary=0)
    paces = [Pace(ONE, 64, in_flight=7), Pace(TWO, 64, unreached=(990.0, "refused"))]
    note = live.note(Tally(), paces, None)
    assert note.endswith("0.25 GPU-hours; 7 in flight; 1 of 2 engines not reached (http://two:8000/v1)")


def test_rented_gpus_cost_by_the_hour_whatever_the_tokens() -> None:
    price = Price(None, None, gpus=8, gpu_hour=2.5)
    assert price.of_tokens(1_000_000, 1_000_000) is None
    tally = Tally(prompt_tokens=3_000, completion_tokens=7_000)
    assert Spent.of(tally, seconds=1800.0, price=price) == Spent(10_000, 4.0, 10.0)
    # A price of tokens beside it is added: an API reached through a rented gateway, say.
    both = Spent.of(tally, 1800.0, Price(1.0, 2.0, 8, 2.5))
    assert both.dollars == pytest.approx(10.0 + (3_000 + 2 * 7_000) / 1e6)


def replica(endpoint: Endpoint, tmp_path: Path, code: str) -> Replica:
    log = tmp_path / f"{endpoint.url.split('/')[2]}.log"
    return Replica.started(endpoint, log, [sys.executable, "-c", code], {}, 1.0)


def tended(engine: Engine) -> list[str | None]:
    told = []
    for _ in range(RESTARTS + 3):
        for one in engine.replicas:
            if one.restarts <= RESTARTS and "sleep" not in one.command[-1]:
                one.process.wait(20)
        told.append(engine.tend([]))
    return told


def test_a_replica_that_dies_again_and_again_is_given_up_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dying = replica(ONE, tmp_path, "raise ValueError('no memory')")
    living = replica(TWO, tmp_path, "import time; time.sleep(600)")
    try:
        assert tended(Engine([ONE, TWO], [], [dying, living])) == [None] * (RESTARTS + 3)
    finally:
        living.process.kill()
        living.process.wait()
    assert dying.lost
    assert dying.restarts == RESTARTS
    said = capsys.readouterr().err
    assert said.count("starting it again") == RESTARTS
    assert said.count("the others go on without") == 1


def test_the_last_replica_that_is_given_up_ends_the_run(tmp_path: Path) -> None:
    dying = replica(ONE, tmp_path, "raise ValueError('no memory')")
    told = tended(Engine([ONE], [], [dying]))
    assert told[:RESTARTS] == [None] * RESTARTS
    assert told[-1] is not None
    assert "(ValueError: no memory; restarted 3 times before; log:" in told[-1]
    assert isinstance(dying.process, subprocess.Popen)
