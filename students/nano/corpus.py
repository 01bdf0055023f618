"""What the bundled base is trained on: single steps and short chains in conversation, long questions answered at
once, and pages to read: facts, copies, lists. It knows the formats and the steps; it does not chain."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from teacher.families.exercise import FULL, SHORT, SINGLE, Hand
from teacher.families.numerals import chinese
from teacher.nano.corpus import (
    END,
    THOUGHT_OUT,
    WEIGHTS,
    Row,
    conversation,
    direct,
    draw,
    echo,
    facts,
    mixed,
    weighted,
    words,
    written,
)

FAMILIES = tuple(WEIGHTS)


def single(rng: random.Random) -> Row:
    """A question of one step, with its thought."""
    return conversation(draw(rng.choice(FAMILIES), rng, SINGLE), Hand(rng))


def short(rng: random.Random) -> Row:
    """A question of a few steps, with its thought."""
    return conversation(draw(rng.choice(FAMILIES), rng, SHORT), Hand(rng))


def general(rng: random.Random) -> Row:
    """A question of the general families, which need no chain."""
    return conversation(draw(rng.choice(("numerals", "greetings")), rng, FULL), Hand(rng))


def at_once(rng: random.Random) -> Row:
    """A long question answered without a thought."""
    return direct(draw(rng.choice(THOUGHT_OUT), rng, FULL), rng)


def copy(rng: random.Random) -> Row:
    """A long question written down twice."""
    question = draw(rng.choice(THOUGHT_OUT), rng, FULL).question
    return Row(f"{question}\n{question}{END}", len(question) + 1)


def listing(rng: random.Random) -> Row:
    """What a long question names, one piece after another, with other text between."""
    name = rng.choice(THOUGHT_OUT)
    question = draw(name, rng, FULL).question
    if name == "sums":
        pieces = re.findall(r"[+-] \d+", question)
        pieces = [f"{rng.randint(0, 99)} {piece} {piece[0]} {rng.randint(0, 99)}" for piece in pieces]
    elif name == "functions":
        pairs2 = re.findall(r"(\d+) -> (\d+)", question)
        pieces = [f"{pairs2[1][place]} - {pairs2[0][place]}" for place in (1, 0)]
    else:
        words = re.findall(r"\d+ \w+|\w+ (?:says|and)|\d+|\w+", question)
        pieces = words
    return Row(f"{question}\nWe get {', '.join(pieces)}.{END}", len(question) + 1)


LAYOUTS = (
    ("Question: {question}\nWorking:", " {working}\nResult: {answer}"),
    ("{question}\n", "{working}\n{answer}"),
    ("Exercise. {question}\n\nSolution.\n", "{working}\n\n{answer}"),
    ("user\n{question}\n\nassistant\n", "{working}\n\n{answer}"),
    ("{question}\n\nThought:\n", "{working}\nAnswer:\n{answer}"),
)
"""How books and sites lay out a worked example: up to the working, and from there on."""


THOUGHTS = tuple(
    (f"{before}<think>\n", "{working}\n</think>\n\n{answer}")
    for before in ("{question}\n\n", "Question: {question}\n\n", "user: {question}\nassistant: ")
)
"""How logs of other models' thoughts lay it out, which today's bases have read as well."""


def page(rng: random.Random) -> Row:
    """A worked example, as a page of a book; the loss lies on its working and its result."""
    return _laid_out(rng.choice(THOUGHT_OUT), LAYOUTS, rng)


def _laid_out(name: str, layouts: tuple[tuple[str, str], ...], rng: random.Random) -> Row:
    exercise = draw(name, rng, FULL)
    steps, answer = exercise.work(Hand(rng))
    before, after = rng.choice(layouts)
    opening = before.format(question=exercise.question)
    rest = after.format(working=written(steps, exercise.question), answer=answer)
    return Row(f"{opening}{rest}{END}", len(opening))


MAKERS = {maker.__name__: maker for maker in (single, short, general, at_once, facts, copy, echo, listing, page, words)}
MIX: dict[str, float] = {
    "page": 0.42,
    "echo": 0.12,
    "single": 0.15,
    "short": 0.08,
    "at_once": 0.08,
    "general": 0.05,
    "facts": 0.03,
    "listing": 0.03,
    "copy": 0.02,
    "words": 0.02,
}
"""Shares of rows, once the echoes of the beginning are over; by tokens, the pages are three fifths of it."""


FIRST, ECHOES_FIRST = 0.05, 0.85
"""The share of the training that is hardly anything but echoes, and of echoes in it."""


def base_rows(rng: random.Random, done: float = 1.0) -> Iterator[Row]:
    """Yield the base's corpus without end: hardly anything but echoes at first, then MIX.

    Args:
        done: the share of the training that lies behind.
    """
    rest = 1 - MIX["echo"]
    mix = MIX if done >= FIRST else {**MIX, "echo": rest * ECHOES_FIRST / (1 - ECHOES_FIRST)}
    yield from mixed(mix, MAKERS, rng)


NUMERALS, CHINESE, ECHOED, ARITHMETIC = 0.3, 0.7, 0.2, 0.15
"""Of the rows of the finish: those of `numerals`, of these those asked in Chinese, echoes in Chinese, and single steps
of sums and countdown."""


def chinese_echo(rng: random.Random) -> Row:
    """A sequence of Chinese numbers that stands there twice; the loss lies on the second time."""
    numbers = "，".join(chinese(rng.randint(1, 999)) for _ in range(rng.randint(2, 8)))
    opening = f"We see {numbers},"
    return Row(f"{opening} so {numbers}.{END}", len(opening))


def base_finish(rng: random.Random, done: float = 1.0) -> Iterator[Row]:
    """Yield the rows of the base's finish without end: much of what it learns last: Chinese numbers, arithmetic."""
    rows = base_rows(rng)
    while True:
        place = rng.random()
        if place < ECHOED:
            yield chinese_echo(rng)
        elif place < ECHOED + NUMERALS:
            asked_in_chinese = rng.random() < CHINESE
            drawn = draw("numerals", rng, rng.choice((SINGLE, FULL)))
            while drawn.question.startswith("把") != asked_in_chinese:
                drawn = draw("numerals", rng, rng.choice((SINGLE, FULL)))
            yield conversation(drawn, Hand(rng))
        elif place < ECHOED + NUMERALS + ARITHMETIC:
            yield conversation(draw(rng.choice(("sums", "countdown")), rng, SINGLE), Hand(rng))
        else:
            yield next(rows)


CHAINED = {"sums": 1.2, "countdown": 0.8, "functions": 3.2, "units": 0.6, "ordering": 0.6, "knights": 1.6}
"""How often the last finish draws the families of chains: rather those that break down first in fine-tuning."""
CHAINS: dict[str, float] = {
    "worked": 0.55,
    "single": 0.13,
    "short": 0.1,
    "at_once": 0.07,
    "general": 0.06,
    "facts": 0.04,
    "echo": 0.02,
    "chinese_echo": 0.01,
    "words": 0.02,
}
"""Shares of rows in the last finish."""


def worked(rng: random.Random) -> Row:
    """A worked example, as a page of a book or as a log of a thought."""
    return _laid_out(weighted(CHAINED, rng), LAYOUTS + THOUGHTS, rng)


def base_chains(rng: random.Random, done: float = 1.0) -> Iterator[Row]:
    """Yield the rows of the base's last finish without end: worked examples, more than half of them by rows.

    Conversations answer long questions at once, as before: it has read chains and does not say them.
    """
    yield from mixed(CHAINS, {**MAKERS, "worked": worked, "chinese_echo": chinese_echo}, rng)
