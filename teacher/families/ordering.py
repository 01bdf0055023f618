"""Logic: who stands where in an order that is told in pairs."""

from __future__ import annotations

import itertools
import random

from teacher.families.exercise import FULL, SHORT, SINGLE, Exercise, Hand, Size, Worked

NAME = "ordering"
DOMAIN = "logic"
VERIFIER = "exact"
PEOPLE = {SINGLE: (2, 2), SHORT: (3, 3), FULL: (5, 6)}
NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return five or six people of whom each neighbouring pair is told; three for a short one, two for a step."""
    order = rng.sample(NAMES, rng.randint(*PEOPLE[size]))
    pairs = list(itertools.pairwise(order))
    rng.shuffle(pairs)
    asked = rng.randrange(len(order))
    told = [f"{a} is taller than {b}" if rng.random() < 0.5 else f"{b} is shorter than {a}" for a, b in pairs]
    question = f"The tallest is {order[0]}, {', '.join(told)}. From tall to short, who is {PLACES[asked]}?"
    return Exercise(question, order[asked], lambda hand: _work(order, asked, hand))


def _work(order: list[str], asked: int, hand: Hand) -> Worked:
    written = list(order)
    if hand.errs():
        # Two neighbours change places: the slip of a reader who lost the thread.
        at = hand.rng.randrange(len(written) - 1)
        written[at], written[at + 1] = written[at + 1], written[at]
    places = [f"{PLACES[place]} {name}" for place, name in enumerate(written[: asked + 1])]
    return [f"We see {' > '.join(written)}", "so " + places[0], *places[1:]], f"The answer is {written[asked]}."
