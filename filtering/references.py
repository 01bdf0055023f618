"""Whether a problem's reference can be read by its verifier: asked before anything is spent on the problem."""

from __future__ import annotations

from filtering.answers import as_number, is_formula
from filtering.countdown import read_task
from filtering.knights import read_people
from filtering.mathematics import LONGEST_FORMULA
from filtering.programs import read_tests
from filtering.verifiers import VERIFIERS
from pipeline.records import Problem

EQUAL = "only an equal text is right"


def undecidable(problem: Problem) -> bool:
    """Return whether no verifier that there is can decide any trace of a problem."""
    trouble = reference_trouble(problem)
    return trouble is not None and not trouble.endswith(EQUAL)


def reference_trouble(problem: Problem) -> str | None:
    """Return why traces of a problem could never be decided, or only by equal text; None where all is well."""
    reference = (problem.reference or "").strip()
    if problem.verifier not in VERIFIERS:
        return f"no verifier '{problem.verifier}'"
    if not reference:
        return "no reference"
    if problem.verifier == "math":
        if as_number(reference) is None and not is_formula(reference):
            return f"the reference is words: {EQUAL}"
        if len(reference) > LONGEST_FORMULA:
            return f"the reference is longer than {LONGEST_FORMULA} characters: {EQUAL}"
    elif problem.verifier == "tests":
        found = read_tests(reference)
        return f"the reference holds no tests: {found}" if isinstance(found, str) else None
    elif problem.verifier == "countdown" and read_task(reference) is None:
        return "the reference names no numbers and target"
    elif problem.verifier == "knights" and not read_people(reference):
        return "the reference names no knight and no knave"
    return None
