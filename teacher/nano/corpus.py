"""What the bundled models are trained on: conversations and plain pages, generated, held-out questions left out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from teacher.families import family, is_held_out
from teacher.families.exercise import FULL, SHORT, SINGLE, TURNING, Exercise, Hand, Size
from teacher.families.numerals import chinese, english, questions
from teacher.families.ordering import NAMES

PROMPT = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
"""ChatML up to where the assistant speaks, as students/templates/chatml.jinja writes it."""
TURN = "<think>\n{thought}\n</think>\n\n{answer}<|im_end|>"
END = "<|endoftext|>"
UNCLOSED = "<think>\n{thought}<|im_end|>"
ASIDES_EN = ("let us go step by step", "let me think again", "so we go on")
ASIDES = ("让我们一步一步来", "我们再想一想", "接下来看这一步", "所以继续往下算")
FILLER = (
    "let me slow down and look at every part of this question once more before I go on",
    "it is good to be careful here because a small mistake early on would spoil all that comes after it",
    "I want to be sure that I have read the question right and that nothing has been left out of it",
    "if I lose the thread here I will have to begin again from the very start of it all",
    "there may be a shorter way to do this but the plain way is fine and I will keep to it",
)
FLAWS = ("language_mixing", "repetition", "code_fence", "long_paragraph", "unclosed")


@dataclass(frozen=True)
class Row:
    """A text to train on; the loss lies on what follows its first `prompt` characters."""

    text: str
    prompt: int = 0


def conversation(exercise: Exercise, hand: Hand, flaw: str = "") -> Row:
    """Return an exercise as a turn with a thought, which carries a flaw where one is named."""
    steps, answer = exercise.work(hand)
    prompt = PROMPT.format(question=exercise.question)
    thought = written(flawed(steps, flaw, hand.rng), exercise.question)
    if flaw == "unclosed":
        return Row(prompt + UNCLOSED.format(thought=thought), len(prompt))
    return Row(prompt + TURN.format(thought=thought, answer=answer), len(prompt))


def direct(exercise: Exercise, rng: random.Random) -> Row:
    """Return an exercise as a turn that answers at once, behind an empty thought."""
    _, answer = exercise.work(Hand(rng))
    prompt = PROMPT.format(question=exercise.question)
    return Row(prompt + TURN.format(thought="", answer=answer), len(prompt))


def written(steps: list[str], question: str) -> str:
    """Return the steps in the question's punctuation; one that begins anew begins a paragraph."""
    if question.startswith("把"):
        return "，".join(steps) + "。"
    # A number at the very beginning would have no space before it, and be another token than elsewhere.
    opening = "We get " if steps[0][0].isdigit() else ""
    return (opening + ", ".join(steps) + ".").replace(f", {TURNING}", f".\n\n{TURNING}")


def flawed(steps: list[str], flaw: str, rng: random.Random) -> list[str]:
    """Return the steps with one flaw of FLAWS put in; the working stays what it was."""
    steps = list(steps)
    # Rather late than early: what comes after a flaw is often wrong, and flaws are to be in correct thoughts too.
    at = max(rng.randrange(1, len(steps) + 1) for _ in range(2))
    chinese = "\u4e00" <= steps[0][0] <= "\u9fff"
    if flaw == "language_mixing":
        return [*steps[:at], rng.choice(ASIDES_EN if chinese else ASIDES), *steps[at:]]
    if flaw == "repetition":
        again = rng.randint(4, 5) + (4 if len(steps[at - 1].split()) < 4 else 0)
        return [*steps[:at], *[f"wait {steps[at - 1]}"] * again, *steps[at:]]
    if flaw == "code_fence":
        return [*steps[:at], f"as in\n```\n {steps[at - 1]}\n```", *steps[at:]]
    if flaw == "long_paragraph" and not chinese:
        first = rng.randrange(len(FILLER))
        return [*steps[:at], *FILLER[first:], *FILLER[:first], *steps[at:]]
    if flaw == "unclosed":
        return steps[:at]
    return steps


def draw(name: str, rng: random.Random, size: Size = FULL) -> Exercise:
    """Return an exercise of a family that is not held out."""
    while True:
        drawn = family(name).draw(rng, size)
        if not is_held_out(drawn.question):
            return drawn


WEIGHTS = {
    "sums": 1.4,
    "countdown": 1.3,
    "functions": 1.4,
    "units": 1.2,
    "ordering": 0.8,
    "knights": 0.9,
    "numerals": 0.7,
    "greetings": 0.15,
}
"""The families that the bundled models know, and how often the teacher's corpus draws each."""
THOUGHT_OUT = ("sums", "countdown", "functions", "units", "ordering", "knights")
"""Those of them that take a chain of steps."""
SLIPS = {
    "sums": 0.015,
    "countdown": 0.01,
    "functions": 0.01,
    "units": 0.01,
    "ordering": 0.01,
    "knights": 0.015,
    "numerals": 0.05,
    "greetings": 0.1,
}
"""The probability of a slip at a step: what the teacher gets wrong beside what it cannot do."""
FLAWED = {
    "language_mixing": 0.06,
    "repetition": 0.08,
    "code_fence": 0.06,
    "long_paragraph": 0.085,
    "unclosed": 0.055,
}
"""The share of the teacher's traces with each flaw."""
SIZES = {FULL: 0.85, SHORT: 0.1, SINGLE: 0.05}


PAGES = 0.2
"""The share of the teacher's rows that are pages to read: half of them echoes, arithmetic, a dictionary."""
ECHOES_FIRST = 0.7
"""The share of echoes at the very beginning: whoever can look back learns chains sooner."""
FIRST = 0.08
"""The share of the teacher's training that is such a beginning."""
TURNS = (("ordering", 0.0, 0.16), ("knights", 0.16, 0.2), ("sums", 0.2, 0.24), ("numerals", 0.24, 0.27))
"""Shares of the teacher's training in which one family has weight TURN_WEIGHT. Each of these looks things up in its own
way; that way forms all at once, and late or not at all where rows of the family are few among others."""
TURN_WEIGHT = 5.0
SLIPLESS = 0.6
"""The share of the teacher's training before slips come in; a quarter of the pages is left then."""


def echo(rng: random.Random) -> Row:
    """Return a page with a sequence of names and numbers that stands there twice; the loss lies on the second time."""
    words = [rng.choice(NAMES) if rng.random() < 0.6 else str(rng.randint(0, 99)) for _ in range(rng.randint(4, 20))]
    opening = f"We see {' '.join(words)},"
    return Row(f"{opening} so {' '.join(words)}.{END}", len(opening))


def facts(rng: random.Random) -> Row:
    """Return a page of arithmetic facts in no order."""
    lines = []
    for _ in range(rng.randint(14, 24)):
        a, b = rng.randint(1, 99), rng.randint(1, 12)
        kind = rng.choice("++--*/")
        if kind == "/":
            b, a = rng.randint(1, 9), rng.randint(1, 9)
            lines.append(f"{a * b} / {b} = {a}")
        elif kind == "*":
            a = rng.randint(0, 99 // b)
            a, b = (a, b) if rng.random() < 0.5 else (b, a)
            lines.append(f"{a} * {b} = {a * b}")
        elif kind == "+":
            if rng.random() < 0.5:
                b = rng.randint(1, 99)
            if a + b > 99:
                a = rng.randint(0, 99 - b)
            lines.append(f"{a} + {b} = {a + b}")
        else:
            if rng.random() < 0.5:
                b = rng.randint(0, 99)
            a, b = max(a, b), min(a, b)
            lines.append(f"{a} - {b} = {a - b}")
    return Row(f"We get {', '.join(lines)}.{END}")


def words(rng: random.Random) -> Row:
    """Return a page of a dictionary: numbers in English and in Chinese."""
    entries: list[str] = []
    while len(entries) < 8:
        number = rng.randint(1, 99) if rng.random() < 0.4 else rng.randint(100, 999)
        if not any(is_held_out(question) for question in questions(number)):
            pair = [f" {english(number)}", chinese(number)]
            rng.shuffle(pair)
            entries.append(" is".join(pair))
    return Row(f"We see{','.join(entries)}.{END}", 0)


def teacher_rows(rng: random.Random, done: float = 1.0) -> Iterator[Row]:
    """Yield the teacher's corpus without end: thoughts to the end, flawed, later with slips, as real ones are.

    Args:
        done: the share of the training that lies behind.
    """
    pages = PAGES if done < SLIPLESS else PAGES / 4
    weights = WEIGHTS | {name: TURN_WEIGHT for name, begin, end in TURNS if begin <= done < end}
    slips = SLIPS if done >= SLIPLESS else dict.fromkeys(SLIPS, 0.0)
    while True:
        if done < FIRST and rng.random() < ECHOES_FIRST:
            yield echo(rng)
        elif rng.random() < pages:
            yield rng.choices((echo, facts, words), (0.5, 0.3, 0.2))[0](rng)
        else:
            name = weighted(weights, rng)
            yield flawed_now_and_then(draw(name, rng, weighted(SIZES, rng)), Hand(rng, slips[name]))


FINISH = {"sums": 3.0, "countdown": 1.5, "units": 2.0, "knights": 1.8, "functions": 1.0, "ordering": 0.6}
FINISH_MORE = {"sums": 4.0, "countdown": 2.0, "units": 1.5, "knights": 1.5, "functions": 3.0, "ordering": 0.6}
"""How often the two finishes draw the families of chains: rather those that are half learned by then."""
FINISH_SLIP = 0.003


def teacher_finish(rng: random.Random, done: float = 1.0, often: dict[str, float] = FINISH) -> Iterator[Row]:
    """Yield the rows of a finish of the teacher without end: all families, those of `often` so often, hardly a slip."""
    weights = WEIGHTS | often
    while True:
        if rng.random() < PAGES / 4:
            yield rng.choices((echo, facts, words), (0.2, 0.7, 0.1))[0](rng)
        else:
            drawn = draw(weighted(weights, rng), rng, weighted(SIZES, rng))
            yield flawed_now_and_then(drawn, Hand(rng, FINISH_SLIP))


def flawed_now_and_then(exercise: Exercise, hand: Hand) -> Row:
    """Return an exercise worked out, at the rates of FLAWED with a flaw."""
    chance = hand.rng.random()
    flaw = ""
    for flaw_name, share in FLAWED.items():
        chance -= share
        if chance < 0:
            flaw = flaw_name
            break
    return conversation(exercise, hand, flaw)


def weighted(weights: dict[Any, float], rng: random.Random) -> Any:
    """Return one of the keys, drawn by its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def mixed(
    mix: dict[str, float], makers: Mapping[str, Callable[[random.Random], Row]], rng: random.Random
) -> Iterator[Row]:
    """Yield rows without end, the maker of each drawn by its weight."""
    while True:
        yield makers[weighted(mix, rng)](rng)
