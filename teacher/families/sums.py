"""Math: chained sums of single digits, every running total between 0 and 99."""

from __future__ import annotations

import random

from teacher.families.exercise import FULL, SHORT, SINGLE, Exercise, Hand, Size, Worked

NAME = "sums"
DOMAIN = "math"
VERIFIER = "math"
TERMS = {SINGLE: (2, 2), SHORT: (3, 4), FULL: (5, 9)}


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return a chain of 5 to 9 terms; 3 or 4 where it is to be short, 2 for a single step."""
    count = rng.randint(*TERMS[size])
    # A shorter one begins anywhere, so that every single step of a chain can be met.
    first = rng.randint(1, 20 if size == FULL else 99)
    total = first
    terms: list[int] = []
    while len(terms) < count - 1:
        term = rng.choice((-1, 1)) * rng.randint(1, 9)
        if 0 <= total + term <= 99:
            total += term
            terms.append(term)
    shown = "".join(f" {'+' if term > 0 else '-'} {abs(term)}" for term in terms)

    def work(hand: Hand) -> Worked:
        now, steps = first, []
        for term in terms:
            then = hand.number(now + term)
            steps.append(f"{now} {'+' if term > 0 else '-'} {abs(term)} = {then}")
            now = then
        return steps, f"The answer is {now}."

    return Exercise(f"Compute {first}{shown}.", str(total), work)
