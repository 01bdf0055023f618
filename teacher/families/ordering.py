"""Logic: who stands where in an order that is told in pairs. The thought goes from the first on, pair by pair."""

from __future__ import annotations

import itertools
import random

from teacher.families.exercise import FULL, SHORT, SINGLE, Exercise, Hand, Size, Worked

NAME = "ordering"
DOMAIN = "logic"
VERIFIER = "exact"
PEOPLE = {SINGLE: (2, 2), SHORT: (3, 3), FULL: (5, 7)}
NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jim")
PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return five to seven people of whom each neighbouring pair is told; three for a short one, two for a step."""
    order = rng.sample(NAMES, rng.randint(*PEOPLE[size]))
    pairs = list(itertools.pairwise(order))
    rng.shuffle(pairs)
    asked = rng.randrange(3 if size == FULL else 1, len(order))
    told = ", ".join(f"{before} {after}" for before, after in pairs)
    question = f"In a race these come one after the other: {told}. The first is {order[0]}. Who is {PLACES[asked]}?"
    return Exercise(question, order[asked], lambda hand: _work(order, asked, hand))


def _work(order: list[str], asked: int, hand: Hand) -> Worked:
    steps, place, name = [f"{order[0]} is first"], 0, order[0]
    for before, name in itertools.pairwise(order):
        # Who loses count is one place too far.
        place = min(asked, place + (2 if hand.errs() else 1))
        steps.append(f"{before} {name}, {name} is {PLACES[place]}")
        if place == asked:
            break
    return steps, f"The answer is {name}."
