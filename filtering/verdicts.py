"""Making verdicts: what every verifier writes the same way."""

from __future__ import annotations

from pipeline.records import Problem, State, Trace, Verdict

SANDBOX = "sandbox"
"""Verdict.decided_by of code that could not be run."""


def not_run(state: State, decided_by: str) -> bool:
    """Return whether a verdict stands for code that could not be run."""
    return state is State.UNDECIDED and decided_by == SANDBOX


def verdict(problem: Problem, trace: Trace, state: State, by: str, why: str, extracted: str | None = None) -> Verdict:
    """Return a verdict on a trace."""
    return Verdict(trace.id, problem.id, state, by, why, extracted)


def undecided(problem: Problem, trace: Trace, by: str, why: str, extracted: str | None = None) -> Verdict:
    """Return an undecided verdict: every doubt is one, with who had it and why."""
    return verdict(problem, trace, State.UNDECIDED, by, why, extracted)


def judged(problem: Problem, trace: Trace, right: bool, by: str, why: str, extracted: str | None) -> Verdict:
    """Return a verdict that is correct or wrong."""
    return verdict(problem, trace, State.CORRECT if right else State.WRONG, by, why, extracted)
