"""Verdicts of one problem and one answer, as the stage and the benchmarks reach them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from filtering.verify import grade
from pipeline.records import Problem, Trace, Verdict

Pair = Callable[..., tuple[Problem, Trace]]


@pytest.fixture
def pair() -> Pair:
    """Make a problem for a verifier and a trace with an answer."""

    def make(verifier: str, reference: str | None, answer: str | None, finish: str = "stop") -> tuple[Problem, Trace]:
        asked = [{"role": "user", "content": "q"}]
        rest = {"domain": "d", "source": "s", "license": "MIT", "reference": reference, "verifier": verifier}
        problem = Problem.of(asked, **rest)
        row = dict.fromkeys(Trace.SCHEMA.names)
        row |= {"id": "t", "problem_id": problem.id, "answer": answer, "text": answer or "", "finish_reason": finish}
        return problem, Trace.from_dict(row)

    return make


@pytest.fixture
def verdict(pair: Pair) -> Callable[..., Verdict]:
    """Grade one answer."""

    def make(verifier: str, reference: str | None, answer: str | None, finish: str = "stop") -> Verdict:
        (found,) = grade([pair(verifier, reference, answer, finish)], workers=1)
        return found

    return make
