"""What verifiers leave to processes that may be killed, and the settling of it: in order, each thing once."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

from filtering.verdicts import SANDBOX
from filtering.workers import Failure, KillablePool
from pipeline.records import Problem, State, Trace, Verdict, content_hash

REMEMBERED = 10_000
"""Findings kept for equal payloads; the samples of one problem stand near each other."""


@dataclass(frozen=True)
class Finding:
    """What a deferred comparison found. `again` asks for a second run, with nothing beside it, that then counts."""

    state: State
    by: str
    why: str
    again: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of deferred work.

    `function` ("module:name") takes a payload and the time allowed and returns a `Finding`; it is killed
    after `patience` times that time and `spare_s`. `trouble` says what a call that gave no finding stands for.
    """

    function: str
    by: str
    imports: tuple[str, ...] = ()
    patience: float = 1.0
    spare_s: float = 0.0
    trouble: str = "{}"


KINDS = {
    "symbolic": Kind("filtering.mathematics:compare_symbolic", "symbolic", ("math_verify",)),
    # The sandbox keeps the time itself, by the processor and by the clock.
    "tests": Kind("filtering.programs:run_tests", SANDBOX, patience=2.0, spare_s=30.0, trouble="not run: {}"),
}


@dataclass(frozen=True)
class Deferred:
    """What is left of a decision: the kind of work, what it is done on, and the answer that was read."""

    kind: str
    payload: tuple[str, ...]
    extracted: str | None

    @cached_property
    def key(self) -> str:
        """What equal work has in common."""
        return content_hash(self.kind, self.payload)

    def verdict(self, problem: Problem, trace: Trace, finding: Finding) -> Verdict:
        """Return the verdict that a finding stands for."""
        return Verdict(trace.id, problem.id, finding.state, finding.by, finding.why, self.extracted)


class Settlement:
    """Settles deferred work in worker processes, `workers` for each kind; use as a context manager."""

    def __init__(self, workers: int, timeout_s: float) -> None:
        """Set up the pools; processes, one a core where `workers` is 0, start with the first work of their kind."""
        self.workers, self.timeout_s = workers or os.cpu_count() or 1, timeout_s
        self._remembered: OrderedDict[str, Finding] = OrderedDict()
        self._stack = ExitStack()

    def __enter__(self) -> Settlement:
        self._pools = {name: self._stack.enter_context(self._pool(kind, self.workers)) for name, kind in KINDS.items()}
        self._alone = {name: self._stack.enter_context(self._pool(kind, 1)) for name, kind in KINDS.items()}
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _pool(self, kind: Kind, workers: int) -> KillablePool:
        return KillablePool(kind.function, workers, kind.patience * self.timeout_s + kind.spare_s, kind.imports)

    def settle(self, work: Iterable[Deferred]) -> Iterator[Finding]:
        """Yield a finding for each piece of work, in order; equal pieces are done once."""
        work = list(work)
        found = {one.key: self._remembered[one.key] for one in work if one.key in self._remembered}
        fresh = {one.key: one for one in work if one.key not in found}
        results = {
            name: pool.map([(one.payload, self.timeout_s) for one in fresh.values() if one.kind == name])
            for name, pool in self._pools.items()
        }
        for one in work:
            if one.key not in found:
                finding = _finding(one, next(results[one.kind]))
                if finding.again:
                    # The workers of the pool stand still meanwhile, but for what each has in hand.
                    (result,) = self._alone[one.kind].map([(one.payload, self.timeout_s)])
                    finding = _finding(one, result)
                found[one.key] = finding
                self._remember(one.key, finding)
            yield found[one.key]

    def _remember(self, key: str, finding: Finding) -> None:
        self._remembered[key] = finding
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)


def _finding(work: Deferred, result: Finding | Failure) -> Finding:
    if isinstance(result, Finding):
        return result
    kind = KINDS[work.kind]
    return Finding(State.UNDECIDED, kind.by, kind.trouble.format(result.why))
