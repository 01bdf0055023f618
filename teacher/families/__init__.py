"""Families of generated problems with checkable answers, in the five domains of DeepSeek-R1's set.

A family's module holds NAME, DOMAIN, VERIFIER and `draw(rng, size) -> Exercise`. Whether a question is held
out depends on its text alone: what trains a model, here or in a recipe, never meets what benchmarks ask.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from typing import Protocol, cast

from pipeline.records import Problem, content_hash
from teacher.families.exercise import FULL, Exercise, Size

FAMILIES = ("sums", "countdown", "functions", "units", "ordering", "knights", "numerals", "greetings")
REASONING = FAMILIES[:6]
BENCHMARKS = FAMILIES[:7]
"""Greetings have too few questions to hold some out."""
HELD_OUT_SHARE = 8
"""One question in so many is held out."""
TRIES = 200
"""Draws in a row without a new question after which a family is taken to be used up."""


class Family(Protocol):
    """What a family's module holds."""

    NAME: str
    DOMAIN: str
    VERIFIER: str

    def draw(self, rng: random.Random, size: Size = FULL) -> Exercise:
        """Return an exercise of the size."""


def family(name: str) -> Family:
    """Return a family's module by its name in FAMILIES."""
    return cast(Family, importlib.import_module(f"teacher.families.{name}"))


def is_held_out(question: str) -> bool:
    """Return whether a question belongs to the benchmarks."""
    return int(content_hash("held out", question)[:8], 16) % HELD_OUT_SHARE == 0


def exercises(name: str, seed: int, held_out: bool, size: Size = FULL) -> Iterator[Exercise]:
    """Yield distinct exercises of a family, without end or until TRIES draws in a row brought none.

    The same seed gives the same exercises in the same order.
    """
    rng = random.Random(f"{name}/{seed}/{size}")
    seen: set[str] = set()
    tries = 0
    while tries < TRIES:
        drawn = family(name).draw(rng, size)
        if drawn.question in seen or is_held_out(drawn.question) != held_out:
            tries += 1
            continue
        tries = 0
        seen.add(drawn.question)
        yield drawn


def as_problem(name: str, exercise: Exercise) -> Problem:
    """Return an exercise as a problem."""
    module = family(name)
    return Problem.of(
        [{"role": "user", "content": exercise.question}],
        domain=module.DOMAIN,
        source=f"retort/{name}",
        license="Apache-2.0",
        reference=exercise.reference,
        verifier=module.VERIFIER,
    )
