"""The stage `verify`: a verdict for every trace in the pool whose problem is in the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from filtering.settings import VerifySettings
from filtering.verifiers import VERIFIERS, Symbolic, math_verdict
from filtering.workers import Failure, KillablePool
from pipeline.manifest import Counts
from pipeline.parts import part_paths, read_rows, write_parts
from pipeline.progress import Progress
from pipeline.records import Problem, State, Trace, Verdict
from pipeline.stages import Job, Outcome

WINDOW = 2000
"""Traces held at once."""


def run(job: Job) -> Outcome:
    """Verify the pool into verdicts/. `kept` counts decided traces; undecided ones stand under `dropped`."""
    settings = job.recipe[VerifySettings]
    problems = {row["id"]: Problem.from_dict(row) for row in read_rows(job.folder("problems"))}
    states: Counter[str] = Counter()
    entered = 0

    def pairs() -> Iterator[tuple[Problem, Trace]]:
        nonlocal entered
        for row in read_rows(job.folder("traces")):
            entered += 1
            if problem := problems.get(row["problem_id"]):
                yield problem, Trace.from_dict(row)
            else:
                states["problem_not_in_run"] += 1

    def rows() -> Iterator[dict[str, Any]]:
        with Progress("verify", _rows_in(job.folder("traces"))) as progress:
            for verdict in grade(pairs(), settings.workers, settings.timeout_s):
                states[verdict.state] += 1
                progress.advance()
                yield verdict.to_dict()

    write_parts(job.out, rows(), Verdict.SCHEMA)
    decided = states[State.CORRECT] + states[State.WRONG]
    dropped = {name: states[name] for name in ("problem_not_in_run", str(State.UNDECIDED)) if states[name]}
    return Outcome(Counts(entered, decided, dropped), {str(state): states[state] for state in State})


def grade(pairs: Iterable[tuple[Problem, Trace]], workers: int = 0, timeout_s: float = 10.0) -> Iterator[Verdict]:
    """Yield a verdict for each problem and trace, in order; stages and benchmarks grade by this alone.

    Args:
        pairs: problems with their traces; only a window of them is held.
        workers: processes for symbolic comparison; 0 takes one a core.
        timeout_s: longest time for one comparison; then the verdict is undecided.
    """
    source = iter(pairs)
    count = workers or os.cpu_count() or 1
    with KillablePool("filtering.verifiers:compare_symbolic", count, timeout_s, ("math_verify",)) as pool:
        while window := list(islice(source, WINDOW)):
            decided = [_decide(problem, trace) for problem, trace in window]
            results = pool.map(pair for pair in decided if not isinstance(pair, Verdict))
            for (problem, trace), verdict in zip(window, decided, strict=True):
                if isinstance(verdict, Verdict):
                    yield verdict
                else:
                    yield math_verdict(problem, trace, verdict, _result(next(results)))


def _decide(problem: Problem, trace: Trace) -> Verdict | Symbolic:
    verifier = VERIFIERS.get(problem.verifier)
    if verifier is None:
        return Verdict(trace.id, problem.id, State.UNDECIDED, "none", f"no verifier '{problem.verifier}'", None)
    return verifier(problem, trace)


def _result(result: Any) -> tuple[State, str]:
    return (State.UNDECIDED, result.why) if isinstance(result, Failure) else result


def _rows_in(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.ParquetFile(path).metadata.num_rows for path in part_paths(folder))
