"""The verifier "knights": who is a knight and who a knave, for every person that the reference names.

The reference reads "Ann is a knight. Bob is a knave."
"""

from __future__ import annotations

import re

from filtering.answers import boxed_answers
from filtering.verdicts import judged, undecided
from pipeline.records import Problem, Trace, Verdict

NAME = r"[^\W\d_][\w'-]{0,40}"  # bounded, as the list of names below: a model's endless repetition costs no square
ONE = re.compile(rf"\b(?P<names>{NAME})\s+is\s+an?\s+(?P<kind>knight|knave)\b", re.IGNORECASE)
SEVERAL = re.compile(
    rf"\b(?P<names>{NAME}(?:(?:,\s*(?:and\s+)?|\s+and\s+){NAME}){{1,12}})\s+are\s+(?:both\s+|all\s+)?"
    r"(?P<kind>knight|knave)s\b",
    re.IGNORECASE,
)
STATED = re.compile(
    r"\b(?:the|my|our|final|correct)\s+(?:final\s+|correct\s+)?answer\s*(?:is\b|:)|\banswer\s*:|答案\s*[是为:：]",
    re.IGNORECASE,
)
People = dict[str, set[str]]
"""Names to what they are said to be."""


def decide_knights(problem: Problem, trace: Trace) -> Verdict:
    """Return a verdict on the final statement: a \\boxed one, what follows "the answer is", the last paragraphs."""
    if trace.answer is None:
        return undecided(problem, trace, "extraction", "the thought never closed: no answer")
    truth = {name: kinds.copy().pop() for name, kinds in read_people(problem.reference or "").items()}
    if not truth:
        return undecided(problem, trace, "reference", "the reference names no knight and no knave")
    if trace.finish_reason == "length":
        return undecided(problem, trace, "extraction", "cut off before the end of the answer")
    said = {name: kinds for name, kinds in _final(trace.answer, set(truth)).items() if name in truth}
    if not said:
        return undecided(problem, trace, "extraction", "nobody is called a knight or a knave in the end")
    shown = ", ".join(f"{name.title()}: {' and '.join(sorted(kinds))}" for name, kinds in sorted(said.items()))
    for name, kind in truth.items():
        if name not in said:
            return judged(problem, trace, False, "knights", f"{name.title()} is missing", shown)
        if len(said[name]) > 1:
            return judged(problem, trace, False, "knights", f"{name.title()} is called both", shown)
        if kind not in said[name]:
            other = "knave" if kind == "knight" else "knight"
            return judged(problem, trace, False, "knights", f"{name.title()} is a {kind}, not a {other}", shown)
    return judged(problem, trace, True, "knights", f"all {len(truth)} are right", shown)


def read_people(text: str) -> People:
    """Return everybody whom a text calls a knight or a knave, by lower-case names."""
    text = re.sub(r"[*_`]|\\(?:text|mathrm|textbf)\s*(?=\{)", "", text).replace("~", " ").replace("\\ ", " ")
    people: People = {}
    for pattern in (ONE, SEVERAL):
        for found in pattern.finditer(text):
            for name in re.split(r",\s*(?:and\s+)?|\s+and\s+", found["names"], flags=re.IGNORECASE):
                people.setdefault(name.lower(), set()).add(found["kind"].lower())
    return people


def _final(answer: str, names: set[str]) -> People:
    """Whom the answer's end calls what: a later paragraph counts before an earlier one."""
    if boxes := boxed_answers(answer):
        return read_people(" ".join(boxes) if not read_people(boxes[-1]).keys() >= names else boxes[-1])
    if stated := list(STATED.finditer(answer)):
        people = read_people(answer[stated[-1].end() :])
        if people.keys() & names:
            return people
    people = {}
    for paragraph in reversed(re.split(r"\n\s*\n", answer)):
        here = read_people(paragraph)
        if people and not here:
            break
        people = {**here, **people}
        if people.keys() >= names:
            break
    return people
