"""Readability rules: functions from a problem and a trace to the reason to drop it, or None.

A rule's further parameters are its thresholds; a recipe may set them. R1 publishes none ("mixed
languages, long paragraphs, code blocks": arXiv 2501.12948, 2.3.3), so the defaults are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from filtering.answers import FUNCTIONS
from pipeline.records import Problem, Trace

VERSION = 1
"""Part of the stage's settings: raised with any change of what a rule drops, so that finished runs filter again."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a trace is dropped, and the spans that the rule saw: (field, start, end) in characters."""

    reason: str
    spans: tuple[tuple[str, int, int], ...] = ()


Rule = Callable[..., Dropped | None]


def truncated(problem: Problem, trace: Trace) -> Dropped | None:
    """Drop what the token limit cut off."""
    return Dropped("truncated") if trace.finish_reason == "length" else None


def thought_missing(problem: Problem, trace: Trace, plain_up_to: int = 0) -> Dropped | None:
    """Drop a trace without a thought, or with an empty one; not where the question has at most `plain_up_to`
    characters and so was asked without one.
    """
    plain = len(problem.messages) == 1 and len(problem.messages[-1]["content"]) <= plain_up_to
    return None if trace.thought or plain else Dropped("thought_missing")


def thought_unclosed(problem: Problem, trace: Trace) -> Dropped | None:
    """Drop a trace whose thought never closed."""
    return Dropped("thought_unclosed") if trace.thought is not None and trace.answer is None else None


def answer_missing(problem: Problem, trace: Trace) -> Dropped | None:
    """Drop a trace whose thought is followed by nothing."""
    return None if trace.answer else Dropped("answer_missing")


HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]{3,}")
OTHER = re.compile(r"[\u0370-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f\u3040-\u30ff\uac00-\ud7af]")
NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[A-Za-z]+(?:\{[^{}]*\})?", re.DOTALL
)


def language_mixing(problem: Problem, trace: Trace, max_share: float = 0.02, min_letters: int = 3) -> Dropped | None:
    """Drop a thought in which another script than the question's makes up more than `max_share` of the prose.

    Counts letters by script, Chinese characters threefold (about a word's worth of letters each),
    outside code and mathematics. Characters that the question itself uses are exempt; Greek letters
    too (angles and constants). `min_letters` foreign ones are needed.
    """
    if not trace.thought:
        return None
    question = " ".join(message["content"] for message in problem.messages)
    prose = NOT_PROSE.sub(lambda found: " " * len(found[0]), trace.thought)
    weights = {
        HAN: 3 * len(HAN.findall(question)),
        LATIN_WORD: sum(map(len, LATIN_WORD.findall(question))),
        OTHER: len(OTHER.findall(question)),
    }
    # Japanese is written in two of these at once: every script with a real share of the question is at home.
    at_home = {pattern for pattern, weight in weights.items() if weight >= 0.25 * sum(weights.values())}
    foreign: list[tuple[int, int]] = []
    home = 0
    for pattern in (HAN, LATIN_WORD, OTHER):
        for found in pattern.finditer(prose):
            weight = 3 * len(found[0]) if pattern is HAN else len(found[0])
            if pattern in at_home:
                home += weight
            elif "\u0370" <= found[0] <= "\u03ff" or found[0] in question or found[0].lower() in FUNCTIONS:
                continue
            else:
                foreign.append(found.span())
    count = sum(3 * (end - start) if HAN.match(prose, start) else end - start for start, end in foreign)
    if len(foreign) >= 1 and count >= min_letters and count > max_share * (home + count):
        return Dropped("language_mixing", tuple(("thought", start, end) for start, end in foreign[:50]))
    return None


def repetition(
    problem: Problem, trace: Trace, ngram: int = 20, max_repeats: int = 4, max_line_repeats: int = 4
) -> Dropped | None:
    """Drop a loop: a run of `ngram` words seen more than `max_repeats` times, or a line repeated in a row.

    A Chinese, Japanese or Korean character counts as a word. Looks into thought and answer.
    """
    for field in ("thought", "answer"):
        if spans := loops(getattr(trace, field) or "", ngram, max_repeats, max_line_repeats):
            return Dropped("repetition", tuple((field, start, end) for start, end in spans))
    return None


def loops(text: str, ngram: int = 20, max_repeats: int = 4, max_line_repeats: int = 4) -> list[tuple[int, int]]:
    """Return the spans of a loop in a text, as `repetition` defines it; none where there is none."""
    return _repeated_words(text, ngram, max_repeats) or _repeated_lines(text, max_line_repeats)


def loop_rule(rules: list[dict[str, Any]]) -> Callable[[str], bool] | None:
    """Return whether a text holds a loop by the thresholds of a recipe's rules; None where they do not ask for it."""
    for settings in rules:
        if settings["rule"] == "repetition":
            thresholds = {key: value for key, value in settings.items() if key not in ("rule", "source")}
            return lambda text: bool(loops(text, **thresholds))
    return None


WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def _repeated_words(text: str, ngram: int, max_repeats: int) -> list[tuple[int, int]]:
    words = [(found[0], found.start(), found.end()) for found in WORD.finditer(text)]
    seen: dict[tuple[str, ...], list[int]] = {}
    for place in range(len(words) - ngram + 1):
        key = tuple(word for word, _, _ in words[place : place + ngram])
        places = seen.setdefault(key, [])
        if not places or place - places[-1] >= ngram // 2:
            places.append(place)
        if len(places) > max_repeats:
            return [(words[at][1], words[at + ngram - 1][2]) for at in places]
    return []


def _repeated_lines(text: str, max_repeats: int) -> list[tuple[int, int]]:
    run: list[tuple[int, int]] = []
    before = ""
    for line in re.finditer(r"[^\n]+", text):
        stripped = line[0].strip()
        if not stripped:
            continue
        run = [*run, line.span()] if stripped == before else [line.span()]
        before = stripped
        if len(run) > max_repeats and len(stripped) >= 8:
            return run
    return []


def long_paragraph(problem: Problem, trace: Trace, max_chars: int = 3000) -> Dropped | None:
    """Drop a wall of text: a paragraph of the thought longer than `max_chars` (breaks are blank lines)."""
    thought = trace.thought or ""
    start = 0
    for gap in [*re.finditer(r"\n[ \t]*\n\s*", thought), None]:
        end = gap.start() if gap else len(thought)
        if end - start > max_chars:
            return Dropped("long_paragraph", (("thought", start, end),))
        start = gap.end() if gap else end
    return None


def code_fence(problem: Problem, trace: Trace) -> Dropped | None:
    """Drop a thought with a fenced code block."""
    found = re.search(r"^[ \t]*(```|~~~)", trace.thought or "", re.MULTILINE)
    return Dropped("code_fence", (("thought", *found.span()),)) if found else None


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        truncated,
        thought_missing,
        thought_unclosed,
        answer_missing,
        language_mixing,
        repetition,
        long_paragraph,
        code_fence,
    )
}


def first_reason(rules: list[dict[str, object]], problem: Problem, trace: Trace) -> Dropped | None:
    """Return the first rule's reason to drop the trace, or None: the recipe's rules in order."""
    for settings in rules:
        thresholds = {key: value for key, value in settings.items() if key not in ("rule", "source")}
        found = RULES[str(settings["rule"])](problem, trace, **thresholds)
        if found is not None:
            return found
    return None
