"""Verifiers: functions from a problem and a trace to a verdict.

*Undecided* stands for every doubt: nothing to read an answer from, no reference, out of time, trouble of
ours. It is never wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction

from filtering.answers import as_number, final_answer, is_formula, normalised_answer
from pipeline.records import Problem, State, Trace, Verdict

VERSION = 1
"""Part of the stage's settings: raised with any change of verdicts, so that finished runs verify again."""
RELATIVE_TOLERANCE = Fraction(1, 10**6)
"""For decimals, the six digits to which math-verify rounds."""
LONGEST_FORMULA = 400
"""Characters; what is longer is not handed to the symbolic comparison."""

Symbolic = tuple[str, str]
"""A reference and an answer that only a symbolic comparison can decide."""


def decide_math(problem: Problem, trace: Trace) -> Verdict | Symbolic:
    """Return a verdict by string or by number, or what is left for the symbolic comparison."""
    if trace.answer is None:
        return _verdict(problem, trace, State.UNDECIDED, "extraction", "the thought never closed: no answer", None)
    found = final_answer(trace.answer)
    if found is None:
        return _verdict(problem, trace, State.UNDECIDED, "extraction", "no final answer found", None)
    answer, how = found
    if how == "last number" and trace.finish_reason == "length":
        return _verdict(problem, trace, State.UNDECIDED, "extraction", "cut off before a final answer", None)
    if problem.reference is None or not problem.reference.strip():
        return _verdict(problem, trace, State.UNDECIDED, "reference", "the problem has no reference", answer)
    if normalised_answer(answer) == normalised_answer(problem.reference):
        return _verdict(problem, trace, State.CORRECT, "exact", f"equal text ({how})", answer)
    ours, theirs = as_number(answer), as_number(problem.reference)
    if ours is not None and theirs is not None:
        # Whole numbers are exact; the tolerance is for decimals.
        exact = ours.denominator == theirs.denominator == 1
        same = ours == theirs if exact else abs(ours - theirs) <= RELATIVE_TOLERANCE * abs(theirs)
        why = f"{answer} {'=' if same else '!='} {problem.reference} ({how})"
        return _verdict(problem, trace, State.CORRECT if same else State.WRONG, "numeric", why, answer)
    if not is_formula(answer):
        # The symbolic comparison reads prose as a product of letters, and calls it wrong.
        return _verdict(problem, trace, State.UNDECIDED, "text", "the answer is words that no rule reads", answer)
    if len(answer) > LONGEST_FORMULA:
        return _verdict(
            problem, trace, State.UNDECIDED, "symbolic", "the answer is too long to compare", answer[:LONGEST_FORMULA]
        )
    return problem.reference, answer


def compare_symbolic(pair: Symbolic) -> tuple[State, str]:
    """Compare a reference and an answer by math-verify; to be run in a process that may be killed."""
    from math_verify import parse, verify

    # It warns at each call that its time-outs are off. They are, since they answer "wrong"; the worker's
    # own time-out answers "undecided".
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    reference, answer = pair
    gold = parse(f"\\boxed{{{reference}}}", parsing_timeout=None)
    target = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not gold or not target:
        return State.UNDECIDED, f"cannot parse the {'reference' if not gold else 'answer'}"
    same = verify(gold, target, timeout_seconds=None, raise_on_error=True)
    return (State.CORRECT if same else State.WRONG), "math-verify"


def math_verdict(problem: Problem, trace: Trace, pair: Symbolic, result: tuple[State, str]) -> Verdict:
    """Return the verdict that a symbolic comparison's result stands for."""
    state, why = result
    return _verdict(problem, trace, state, "symbolic", why, pair[1])


def _verdict(problem: Problem, trace: Trace, state: State, by: str, why: str, extracted: str | None) -> Verdict:
    return Verdict(trace.id, problem.id, state, by, why, extracted)


VERIFIERS: dict[str, Callable[[Problem, Trace], Verdict | Symbolic]] = {"math": decide_math}
