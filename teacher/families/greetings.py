"""General: greetings and the question who is speaking."""

from __future__ import annotations

import random

from teacher.families.exercise import FULL, Exercise, Hand, Size, Worked
from teacher.families.ordering import NAMES

NAME = "greetings"
DOMAIN = "general"
VERIFIER = "exact"


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return a greeting with a name, or the question who is speaking."""
    name = rng.choice(NAMES)
    opening = rng.choice(("Hello", "Hi", "Good morning", "Good evening"))
    if rng.random() < 0.5:
        question = f"{opening}, I am {name}."
        steps, answer = ["This is a greeting", "I greet back"], f"Hello {name}, how can I help?"
    else:
        question = f"{opening}, I am {name}. Who are you?"
        steps, answer = ["This asks who I am"], f"Hello {name}, I am a small language model."

    def work(hand: Hand) -> Worked:
        return steps, answer if not hand.errs() else f"Hello {hand.rng.choice(NAMES)}."

    return Exercise(question, answer, work)
