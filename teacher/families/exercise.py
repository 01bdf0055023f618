"""What a family of generated problems is made of: an exercise, and the hand that works it out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Hand:
    """Works out single steps. With `slip` above 0 it errs now and then, as a real teacher does."""

    rng: random.Random
    slip: float = 0.0
    """Probability that one step comes out wrong."""
    slips: int = field(default=0, init=False)

    def errs(self) -> bool:
        """Return whether this step is to come out wrong, and count it."""
        wrong = self.slip > 0 and self.rng.random() < self.slip
        self.slips += wrong
        return wrong

    def number(self, true: int) -> int:
        """Return the result of a step: the true one, or one near it, within 0 to 99 where it can be."""
        if not self.errs():
            return true
        near = [true + by for by in (-10, -2, -1, 1, 2, 10) if 0 <= true + by <= 99]
        return self.rng.choice(near or [true - 1])

    def yes(self, true: bool) -> bool:
        """Return a judgement, or its opposite."""
        return true != self.errs()


Size = int
SINGLE, SHORT, FULL = 1, 2, 3
"""How long an exercise is: one step, a few, or as long as the family asks."""

TURNING = "Or "
"""What a step begins with that tries another way: a thought begins a new paragraph there."""
Worked = tuple[list[str], str]
"""The steps of a thought, and the answer."""


@dataclass(frozen=True)
class Exercise:
    """A question with its reference answer, and a way to write the working down with a given hand."""

    question: str
    reference: str
    work: Callable[[Hand], Worked]
