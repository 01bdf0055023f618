"""The stage `verify`: a verdict for every trace in the pool whose problem is in the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from filtering import sandbox
from filtering.deferred import Deferred, Settlement
from filtering.settings import VerifySettings
from filtering.verdicts import not_run
from filtering.verifiers import VERIFIERS
from pipeline.manifest import Counts
from pipeline.parts import count_rows, read_rows, write_parts
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
    entered = stuck = 0

    def pairs() -> Iterator[tuple[Problem, Trace]]:
        nonlocal entered
        for row in read_rows(job.folder("traces")):
            entered += 1
            if problem := problems.get(row["problem_id"]):
                yield problem, Trace.from_dict(row)
            else:
                states["problem_not_in_run"] += 1

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal stuck
        with Progress("verify", count_rows(job.folder("traces"))) as progress:
            for verdict in grade(pairs(), settings.workers, settings.timeout_s):
                states[verdict.state] += 1
                stuck += not_run(verdict.state, verdict.decided_by)
                progress.advance()
                yield verdict.to_dict()

    write_parts(job.out, rows(), Verdict.SCHEMA)
    decided = states[State.CORRECT] + states[State.WRONG]
    dropped = {name: states[name] for name in ("problem_not_in_run", str(State.UNDECIDED)) if states[name]}
    found = {str(state): states[state] for state in State}
    return Outcome(Counts(entered, decided, dropped), {**found, **sandbox.lacked(stuck)})


def grade(pairs: Iterable[tuple[Problem, Trace]], workers: int = 0, timeout_s: float = 10.0) -> Iterator[Verdict]:
    """Yield a verdict for each problem and trace, in order; stages and benchmarks grade by this alone.

    Args:
        pairs: problems with their traces; only a window of them is held.
        workers: processes for what is deferred (symbolic comparison, programs); 0 takes one a core.
        timeout_s: longest time for one comparison, then the verdict is undecided; for a program, processor time,
            then it is run again alone, then wrong.
    """
    with Settlement(workers, timeout_s) as settlement:
        yield from grade_by(settlement, pairs)


def grade_by(settlement: Settlement, pairs: Iterable[tuple[Problem, Trace]]) -> Iterator[Verdict]:
    """Yield a verdict for each problem and trace, in order, by a settlement that serves several such calls.

    Its processes are started once, and what two models answered alike is run once.
    """
    source = iter(pairs)
    while window := list(islice(source, WINDOW)):
        decided = [_decide(problem, trace) for problem, trace in window]
        findings = settlement.settle([one for one in decided if isinstance(one, Deferred)])
        for (problem, trace), one in zip(window, decided, strict=True):
            yield one if isinstance(one, Verdict) else one.verdict(problem, trace, next(findings))


def _decide(problem: Problem, trace: Trace) -> Verdict | Deferred:
    verifier = VERIFIERS.get(problem.verifier)
    if verifier is None:
        return Verdict(trace.id, problem.id, State.UNDECIDED, "none", f"no verifier '{problem.verifier}'", None)
    return verifier(problem, trace)
