"""Judging beside sampling: what hangs is given up, and what stands behind it is judged all the same."""

from __future__ import annotations

import os
import signal
import time

import pytest

from filtering.beside import Beside, Judged
from filtering.settings import FilterSettings, VerifySettings
from pipeline.records import Problem, State, Trace


def pair(number: int) -> tuple[Problem, Trace]:
    asked = [{"role": "user", "content": f"What is {number} plus 1?"}]
    problem = Problem.of(asked, domain="math", source="s", license="l", reference=str(number + 1), verifier="math")  # type: ignore[arg-type]
    said = {"id": f"t{number}", "problem_id": problem.id, "thought": "So.", "answer": str(number + 1), "text": ""}
    return problem, Trace.from_dict(dict.fromkeys(Trace.SCHEMA.names) | said | {"finish_reason": "stop"})


def until(beside: Beside, count: int) -> list[Judged]:
    found: list[Judged] = []
    while len(found) < count:
        found += beside.results()
        time.sleep(0.02)
    return found


def test_a_trace_in_which_judging_hangs_is_undecided_and_the_others_are_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Beside(VerifySettings(workers=1, timeout_s=1), FilterSettings()) as beside:
        beside.give(*pair(0))
        (first,) = until(beside, 1)
        assert first.verdict.state == State.CORRECT
        # Stopped, it stands for a verifier that never comes back.
        os.kill(beside._process.pid, signal.SIGSTOP)
        monkeypatch.setattr("filtering.beside.STUCK_SECONDS", -3.9)
        for number in (1, 2, 3):
            beside.give(*pair(number))
        time.sleep(0.2)
        (stuck,) = beside.results()
        monkeypatch.undo()
        assert (stuck.verdict.trace_id, stuck.verdict.state) == ("t1", State.UNDECIDED)
        rest = until(beside, 2)
        assert [(one.verdict.trace_id, one.verdict.state) for one in rest] == [
            ("t2", State.CORRECT),
            ("t3", State.CORRECT),
        ]
        assert beside.waiting == 0
    assert "the trace t1 is left undecided: nothing came of judging it for" in capsys.readouterr().err


def test_a_process_that_dies_is_started_again() -> None:
    with Beside(VerifySettings(workers=1), FilterSettings()) as beside:
        beside.give(*pair(0))
        until(beside, 1)
        os.kill(beside._process.pid, signal.SIGKILL)
        beside.give(*pair(1))
        (found,) = until(beside, 1)
        assert found.verdict.trace_id == "t1"
