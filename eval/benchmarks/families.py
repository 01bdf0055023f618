"""The bundled families as benchmarks: the held-out questions of teacher/families/, one benchmark a family."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.errors import UserError
from pipeline.records import Problem
from teacher.families import as_problem, exercises, family

QUESTIONS = 200
"""Held-out questions of a family; a recipe takes its limit out of these."""
SEED = 20_260


@dataclass(frozen=True)
class FamilyBenchmark:
    """A family put as a benchmark: see `eval.benchmarks.Benchmark` for the fields."""

    NAME: str
    DOMAIN: str
    VERIFIER: str
    LICENSE: str = "Apache-2.0"

    def problems(self, path: Path | None) -> list[Problem]:
        """Return the family's held-out questions, the same on every machine.

        Raises:
            UserError: a path is given: the questions are generated.
        """
        if path is not None:
            raise UserError(
                f"the benchmark '{self.NAME}' generates its questions and reads no file ({path})",
                "leave out its path in eval.benchmarks",
            )
        return [
            as_problem(self.NAME, exercise) for exercise in islice(exercises(self.NAME, SEED, held_out=True), QUESTIONS)
        ]


def of(name: str) -> FamilyBenchmark:
    """Return the benchmark of a family by its name."""
    module = family(name)
    return FamilyBenchmark(module.NAME, module.DOMAIN, module.VERIFIER)
