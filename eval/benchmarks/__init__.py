"""The benchmarks by name: one module each, imported when it is asked for.

A benchmark's module holds NAME, DOMAIN, LICENSE and VERIFIER, and a function
`problems(path: Path | None) -> list[Problem]` that reads its questions (from the Hub where `path`
is None). To add one, write the module and name it in BENCHMARKS.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from pipeline.records import Problem, content_hash
from teacher.families import BENCHMARKS as BUNDLED

BENCHMARKS = {
    "gsm8k": "eval.benchmarks.gsm8k",
    **dict.fromkeys(BUNDLED, "eval.benchmarks.families"),
}


class Benchmark(Protocol):
    """What a benchmark's module holds."""

    NAME: str
    DOMAIN: str
    LICENSE: str
    VERIFIER: str

    def problems(self, path: Path | None) -> list[Problem]:
        """Return the questions, each with its reference, in the order of their source.

        Raises:
            UserError: they cannot be read.
        """


def benchmark(name: str) -> Benchmark:
    """Return a benchmark's module by its name in BENCHMARKS."""
    module = importlib.import_module(BENCHMARKS[name])
    return cast(Benchmark, module.of(name) if name in BUNDLED else module)


def draw(problems: Sequence[Problem], limit: int | None, seed: int) -> list[Problem]:
    """Return at most `limit` distinct questions, drawn by the seed.

    The draw orders questions by a hash of seed and id: it does not depend on the order of the file,
    and a larger limit holds all that a smaller one held, so samples already paid for stay of use.
    """
    distinct = {problem.id: problem for problem in problems}
    ordered = sorted(distinct.values(), key=lambda problem: content_hash("draw", seed, problem.id))
    return ordered[:limit]
