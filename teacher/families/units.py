"""STEM: unit conversion, from the largest unit down to the smallest."""

from __future__ import annotations

import random

from teacher.families.exercise import FULL, SINGLE, Exercise, Hand, Size, Worked

NAME = "units"
DOMAIN = "stem"
VERIFIER = "math"

SYSTEMS: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("gallons", "quarts", "pints", "cups"), (4, 2, 2)),
    (("yards", "feet", "inches"), (3, 12)),
    (("fortnights", "weeks", "days"), (2, 7)),
    (("dollars", "quarters", "nickels"), (4, 5)),
)
LARGEST = 99


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return amounts in three or four units to be put into the smallest; in two for a short one, in one for a step."""
    while True:
        names, factors = rng.choice(SYSTEMS)
        if size != FULL:
            at = rng.randrange(len(factors))
            names, factors = names[at : at + 2], factors[at : at + 1]
        amounts = [rng.randint(1, 9) for _ in names]
        if size == SINGLE:
            amounts = [rng.randint(1, 9)]
        # "12 quarters" as an answer could mean a number of fourths.
        if _total(amounts, factors) <= LARGEST and names[-1] != "quarters":
            break
    parts = [f"{amount} {name}" for amount, name in zip(amounts, names, strict=False)]
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"

    def work(hand: Hand) -> Worked:
        now, steps = amounts[0], []
        for place, factor in enumerate(factors, start=1):
            then = hand.number(now * factor)
            steps.append(f"{now} * {factor} = {then}")
            now = then
            if place < len(amounts):
                then = hand.number(now + amounts[place])
                steps.append(f"{now} + {amounts[place]} = {then}")
                now = then
        return steps, f"The answer is {now} {names[-1]}."

    return Exercise(f"How many {names[-1]} are {listed}?", f"{_total(amounts, factors)}", work)


def _total(amounts: list[int], factors: tuple[int, ...]) -> int:
    total = amounts[0]
    for place, factor in enumerate(factors, start=1):
        total = total * factor + (amounts[place] if place < len(amounts) else 0)
    return total
