"""Adaptive sampling: each problem as often as it needs, judged while others are still being asked.

What was found of each trace is kept beside the pool, in traces/judged/, so that a run that goes on knows
without judging anew where each problem stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from filtering.beside import Beside, Judged
from filtering.settings import FilterSettings, VerifySettings
from filtering.verdicts import not_run
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.progress import Progress
from pipeline.records import Problem, State, Trace, Verdict, content_hash
from pipeline.tally import Tally
from teacher.asking import Adaptive
from teacher.continuing import Continuing
from teacher.cost import Price
from teacher.driving import check_given_up, driver_for
from teacher.live import Live
from teacher.meter import Gate, always
from teacher.policy import Plan, pass_rate
from teacher.replicas import Engine
from teacher.sampling import (
    id_of,
    is_plain,
    request_for,
    template_hash,
    trace_of,
)
from teacher.settings import SamplingSettings

JUDGED = "judged"
SCHEMA = pa.schema([("id", pa.string()), *Verdict.SCHEMA, ("reason", pa.string()), ("judges", pa.string())])
"""`judges` is a hash of the verifiers' and the rules' settings: what others found is judged again."""
FOUND = ["trace_id", "problem_id", "state", "decided_by", "reason", "judges"]
MOST_WAITING = 2000
"""Traces of an earlier run handed over to be judged at once."""
POLL_SECONDS = 0.02


@dataclass
class Sampled:
    """What adaptive sampling came to."""

    tally: Tally
    asked: Adaptive
    wanted: set[str]
    """Ids of the traces that belong to these settings."""
    stuck: int = 0
    """Of the traces judged now, those with code that could not be run."""
    pass_rates: dict[str, float] = field(default_factory=dict)
    """By domain, the mean over its problems, estimated without the bias of stopping."""


def sample_adaptively(
    problems: Sequence[Problem],
    pool: Path,
    settings: SamplingSettings,
    verify: VerifySettings,
    filters: FilterSettings,
    *,
    model: str,
    revision: str,
    endpoints: Callable[[], Sequence[Endpoint]],
    seed: int,
    engine: Callable[[], Engine | None] = lambda: None,
    listed: Callable[[], list[Endpoint]] | None = None,
    loops: Callable[[str], bool] | None = None,
    gate: Callable[[Tally], Gate] = always,
    live: Live | None = None,
    continuing: Continuing | None = None,
    price: Price | None = None,
) -> Sampled:
    """Sample until every problem has what it needs; leave the pool and what was found of it.

    Args:
        endpoints: called when there is something to ask: an engine is started for nothing otherwise.
        gate: asked before each request: whether a budget lets it out.
        live: told of each trace; says what progress shows, and whether to go on.
        continuing: continues what its budget cut off.
        price: what tokens cost.

    Raises:
        UserError: the engine refuses or is gone, the disk is full, or some samples were given up.
    """
    template = template_hash(settings)
    judges = content_hash(verify.result_settings(), filters.result_settings())

    def identity(problem: str, number: int) -> str:
        return id_of(problem, number, model, revision, template, settings)

    seeds: int | None = seed
    of: dict[str, tuple[str, int]] = {}

    def ask(problem: Problem, number: int) -> Request:
        id = identity(problem.id, number)
        of[id] = (problem.id, number)
        request = request_for(id, problem, settings, seeds)
        return continuing.begun(request) if continuing else request

    asked = Adaptive(problems, Plan(settings.keep, settings.samples, settings.hopeless), settings.undecided_share, ask)
    wanted: set[str] = set()
    with (
        Journal(pool, Trace.SCHEMA) as traces,
        Journal(pool / JUDGED, SCHEMA) as found,
        Beside(verify, filters) as beside,
    ):
        found.roll()
        traces.roll()
        for row in read_rows(pool, columns=["id", "problem_id", "sample"]):
            known = row["problem_id"] in asked.by_id and row["sample"] < settings.samples
            if known and identity(row["problem_id"], row["sample"]) == row["id"]:
                wanted.add(row["id"])
                asked.held(row["problem_id"], row["sample"])
        anew = set(wanted)
        for row in read_rows(pool / JUDGED, columns=FOUND):
            # Code that could not be run is judged again: by now there may be a sandbox.
            if (
                row["judges"] == judges
                and row["trace_id"] in anew
                and not not_run(State(row["state"]), row["decided_by"])
            ):
                anew.discard(row["trace_id"])
                asked.judged(row["problem_id"], row["state"], row["reason"])
        unjudged = (row for row in read_rows(pool) if row["id"] in anew) if anew else iter(())
        stuck = 0

        def drain() -> None:
            nonlocal stuck
            if fresh := list(beside.results()):
                # What could not be run is judged again by the next start, and its row would bar that verdict's.
                run = (one for one in fresh if not not_run(one.verdict.state, one.verdict.decided_by))
                found.append(_row(one, judges) for one in run)
                for one in fresh:
                    asked.judged(one.verdict.problem_id, one.verdict.state, one.reason)
                    stuck += not_run(one.verdict.state, one.verdict.decided_by)
            # A pool of millions is not held in memory to be judged again.
            while beside.waiting < MOST_WAITING and (row := next(unjudged, None)) is not None:
                beside.give(asked.by_id[row["problem_id"]], Trace.from_dict(row))

        drain()

        tally = Tally()

        def to_row(request: Request, completion: Completion) -> dict[str, Any]:
            problem, number = of.pop(request.id)
            completion = continuing.whole(request, completion) if continuing else completion
            opens = continuing is not None and continuing.template_opens
            trace = trace_of(request, completion, problem, number, settings, model, revision, price, opens)
            wanted.add(trace.id)
            if live is not None and not is_plain(asked.by_id[problem], settings):
                live.saw(trace)
            return trace.to_dict()

        def requests() -> Iterator[Request | None]:
            for request in asked:
                drain()
                while request is not None and (said := gate(tally)) != "ask":
                    if said == "stop":
                        return
                    drain()
                    yield None
                yield request

        with Progress("traces", 0) as progress:
            source = _started(requests())
            if source is not None:
                ready = endpoints()
                served = engine()
                seeds = seed if served is None or served.takes_seeds else None

                driver = driver_for(
                    ready,
                    _Judging(traces, beside, asked.by_id),
                    to_row,
                    settings,
                    engine=served,
                    listed=listed,
                    loops=loops,
                    live=live,
                    continuing=continuing,
                    asked=asked,
                    gave_up=lambda request: asked.gave_up(of.pop(request.id)[0]),
                )
                tally = driver.tally
                driver.drive(source, progress)
        while beside.waiting:
            drain()
            time.sleep(POLL_SECONDS)
        traces.roll()
        found.roll()
    check_given_up(tally, "traces", len(wanted) + asked.lost, settings.attempts)
    return Sampled(tally, asked, wanted, stuck, _pass_rates(asked, pool, wanted, judges))


def _pass_rates(asked: Adaptive, pool: Path, wanted: set[str], judges: str) -> dict[str, float]:
    """Return each domain's mean pass rate over its problems, free of the bias that stopping at `keep` brings."""
    numbers = {row["id"]: row["sample"] for row in read_rows(pool, columns=["id", "sample"]) if row["id"] in wanted}
    tries: dict[str, dict[int, bool]] = {}
    for row in read_rows(pool / JUDGED, columns=FOUND):
        decided = row["state"] != State.UNDECIDED or row["reason"] is not None
        if row["judges"] == judges and row["trace_id"] in numbers and decided:
            right = row["state"] == State.CORRECT and row["reason"] is None
            tries.setdefault(row["problem_id"], {})[numbers[row["trace_id"]]] = right
    rates: dict[str, list[float]] = {}
    for id, outcomes in tries.items():
        domain = asked.by_id[id].domain
        rate = pass_rate([right for _, right in sorted(outcomes.items())], asked.plan, asked.domains[domain].prior)
        if rate is not None:
            rates.setdefault(domain, []).append(rate)
    return {domain: sum(values) / len(values) for domain, values in rates.items()}


@dataclass
class _Judging:
    """The pool's journal; what is durable there is handed over to be judged, never sooner: a verdict whose trace was
    lost would be taken for that of the trace which is sampled in its place."""

    journal: Journal
    beside: Beside
    problems: Mapping[str, Problem]

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        self.journal.append(rows)
        for row in rows:
            self.beside.give(self.problems[row["problem_id"]], Trace.from_dict(row))

    def sync_if_due(self) -> None:
        self.journal.sync_if_due()

    def nearly_full(self) -> UserError | None:
        return self.journal.nearly_full()


def _started(requests: Iterator[Request | None]) -> Iterator[Request | None] | None:
    """Return the requests, or None where there is none to ask: verdicts of held traces are waited for here."""
    for request in requests:
        if request is not None:
            return chain([request], requests)
        time.sleep(POLL_SECONDS)
    return None


def _row(found: Judged, judges: str) -> dict[str, Any]:
    verdict = found.verdict
    return {"id": f"{verdict.trace_id}/{judges[:8]}", **verdict.to_dict(), "reason": found.reason, "judges": judges}
