"""The verifier "exact": the answer's text is the reference's, but for case, spacing and the stop at its end."""

from __future__ import annotations

import re
import unicodedata

from filtering.answers import SENTENCE_END, boxed_answers, normalised_answer, phrase_core, phrases_of
from filtering.verdicts import judged, undecided
from pipeline.records import Problem, Trace, Verdict

LONGEST_LINE = 200
"""Characters; a longer line that states no answer is an explanation."""
REMARKS = frozenset(("correct", "right", "wrong", "incorrect", "clear", "below", "above", "as follows", "unique"))
"""What "the answer is ..." says of an answer, not as one."""


def decide_exact(problem: Problem, trace: Trace) -> Verdict:
    """Return a verdict by text: the whole answer, else the last \\boxed, else the last final-answer phrase."""
    if trace.answer is None:
        return undecided(problem, trace, "extraction", "the thought never closed: no answer")
    if problem.reference is None or not problem.reference.strip():
        return undecided(problem, trace, "reference", "the problem has no reference")
    reference, answer = comparable(problem.reference), trace.answer.strip()
    if comparable(answer) == reference:
        return judged(problem, trace, True, "exact", "equal text (whole answer)", answer)
    stated, how = _stated(answer)
    if stated:
        if any(comparable(text) == reference for text in stated):
            return judged(problem, trace, True, "exact", f"equal text ({how})", stated[-1])
        return judged(
            problem, trace, False, "exact", f"{stated[-1]!r} is not {problem.reference!r} ({how})", stated[-1]
        )
    if not answer or "\n" in answer or len(answer) > LONGEST_LINE:
        return undecided(problem, trace, "extraction", "no final answer found")
    if trace.finish_reason == "length":
        return undecided(problem, trace, "extraction", "cut off before a final answer")
    return judged(problem, trace, False, "exact", f"{answer!r} is not {problem.reference!r} (whole answer)", answer)


def comparable(text: str) -> str:
    """Return a text as it is compared: NFKC, case folded, one space between words, bare of emphasis and final stop."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    bare = text.strip("*_`\"'“”‘’ ").rstrip(".,;:!?。、… ").strip("*_`\"'“”‘’ ")
    return bare or text


def _stated(answer: str) -> tuple[list[str], str]:
    """The readings of the last stated answer, the plainest last; none where none is stated."""
    if boxes := boxed_answers(answer):
        return [boxes[-1], normalised_answer(boxes[-1])], "boxed"
    lines = [line for line in phrases_of(answer) if comparable(line) not in REMARKS and re.search(r"\w", line)]
    if not lines:
        return [], ""
    # A sentence's end or an aside may be part of the text: "St. Ives", "Some Like It So Hot".
    return [lines[-1], SENTENCE_END.split(lines[-1], maxsplit=1)[0], phrase_core(lines[-1])], "phrase"
