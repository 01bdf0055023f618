"""The verifier "math": equal text, equal numbers, or equal formulas by math-verify."""

from __future__ import annotations

import logging
from fractions import Fraction

from filtering.answers import as_number, final_answer, is_formula, normalised_answer
from filtering.deferred import Deferred, Finding
from filtering.verdicts import judged, undecided
from pipeline.records import Problem, State, Trace, Verdict

RELATIVE_TOLERANCE = Fraction(1, 10**6)
"""For decimals, the six digits to which math-verify rounds."""
LONGEST_FORMULA = 400
"""Characters; what is longer is not handed to the symbolic comparison."""


def decide_math(problem: Problem, trace: Trace) -> Verdict | Deferred:
    """Return a verdict by string or by number, or what is left for the symbolic comparison."""
    if trace.answer is None:
        return undecided(problem, trace, "extraction", "the thought never closed: no answer")
    found = final_answer(trace.answer)
    if found is None:
        return undecided(problem, trace, "extraction", "no final answer found")
    answer, how = found
    if how == "last number" and trace.finish_reason == "length":
        return undecided(problem, trace, "extraction", "cut off before a final answer")
    if problem.reference is None or not problem.reference.strip():
        return undecided(problem, trace, "reference", "the problem has no reference", answer)
    if normalised_answer(answer) == normalised_answer(problem.reference):
        return judged(problem, trace, True, "exact", f"equal text ({how})", answer)
    ours, theirs = as_number(answer), as_number(problem.reference)
    if ours is not None and theirs is not None:
        # Whole numbers are exact; the tolerance is for decimals.
        exact = ours.denominator == theirs.denominator == 1
        same = ours == theirs if exact else abs(ours - theirs) <= RELATIVE_TOLERANCE * abs(theirs)
        why = f"{answer} {'=' if same else '!='} {problem.reference} ({how})"
        return judged(problem, trace, same, "numeric", why, answer)
    if not is_formula(answer):
        # The symbolic comparison reads prose as a product of letters, and calls it wrong.
        return undecided(problem, trace, "text", "the answer is words that no rule reads", answer)
    if len(answer) > LONGEST_FORMULA:
        return undecided(problem, trace, "symbolic", "the answer is too long to compare", answer[:LONGEST_FORMULA])
    return Deferred("symbolic", (problem.reference, answer), answer)


def compare_symbolic(work: tuple[tuple[str, str], float]) -> Finding:
    """Compare a reference and an answer by math-verify; to be run in a process that may be killed."""
    from math_verify import parse, verify

    # It warns at each call that its time-outs are off. They are, since they answer "wrong"; the worker's
    # own time-out answers "undecided".
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    (reference, answer), _ = work
    gold = parse(f"\\boxed{{{reference}}}", parsing_timeout=None)
    target = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not gold or not target:
        return Finding(State.UNDECIDED, "symbolic", f"cannot parse the {'reference' if not gold else 'answer'}")
    same = verify(gold, target, timeout_seconds=None, raise_on_error=True)
    return Finding(State.CORRECT if same else State.WRONG, "symbolic", "math-verify")
