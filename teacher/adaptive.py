"""Adaptive sampling: each problem as often as it needs, judged while others are still being asked.

What was found of each trace is kept beside the pool, in traces/judged/, so that a run that goes on knows
without judging anew where each problem stands.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from filtering.beside import Beside, Judged
from filtering.settings import FilterSettings, VerifySettings
from filtering.verdicts import not_run
from pipeline.driver import Driver
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.progress import Progress, say
from pipeline.records import Problem, State, Trace, Verdict, content_hash
from pipeline.tally import Tally
from teacher.continuing import Continuing
from teacher.cost import Price
from teacher.live import Live
from teacher.policy import Domain, Plan, Standing, Why, fitted, pass_rate
from teacher.replicas import Engine
from teacher.sampling import (
    check_given_up,
    drive_settings,
    id_of,
    is_plain,
    no_end,
    no_more,
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
FITTED_EVERY = 200
"""Verdicts of a domain between two looks at how its pass rates are spread, at least."""


@dataclass
class Adaptive:
    """Which sample to ask for next: an iterator of requests for the driver, None where it must wait for verdicts."""

    problems: Sequence[Problem]
    plan: Plan
    undecided_share: float
    ask: Callable[[Problem, int], Request]
    standings: dict[str, Standing] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    lost: int = 0
    """Samples given up, which may be asked again in another run."""

    def __post_init__(self) -> None:
        self.by_id = {problem.id: problem for problem in self.problems}
        for problem in self.problems:
            self.standings.setdefault(problem.id, Standing())
            self.domains.setdefault(problem.domain, Domain())
        self.taken: dict[str, set[int]] = {}
        """Sample numbers of each problem that the pool holds or that were asked for."""
        self._ready: deque[Problem] = deque(self.problems)
        self._paused: list[Problem] = []
        self.waiting = 0
        """Samples that were asked for, or held, whose verdict is not in."""

    def held(self, problem: str, sample: int) -> None:
        """Count a trace that the pool holds; its verdict is still to come."""
        self.standings[problem].on_the_way += 1
        self.taken.setdefault(problem, set()).add(sample)
        self.waiting += 1

    def __iter__(self) -> Iterator[Request | None]:
        return self

    def __next__(self) -> Request | None:
        while self._ready:
            problem = self._ready[0]
            standing, domain = self.standings[problem.id], self.domains[problem.domain]
            if domain.stuck(self.undecided_share):
                self._paused.append(self._ready.popleft())
                continue
            number = self._free(problem.id)
            wanted = self.plan.wants(standing.counts, standing.on_the_way, domain.prior)
            # A sample that nobody could decide is no try, yet it was paid for: `most` bounds both.
            if number is None or wanted <= 0:
                self._ready.popleft()
                continue
            # One sample of every problem before the second of any: a run cut short has asked all alike.
            self._ready.popleft()
            if wanted > 1:
                self._ready.append(problem)
            standing.on_the_way += 1
            self.waiting += 1
            self.taken.setdefault(problem.id, set()).add(number)
            return self.ask(problem, number)
        if self.waiting:
            return None
        raise StopIteration

    def _free(self, problem: str) -> int | None:
        taken = self.taken.get(problem, ())
        return next((number for number in range(self.plan.most) if number not in taken), None)

    def judged(self, id: str, state: str, reason: str | None) -> None:
        """Take what was found of a sample of a problem, and ask it again where it needs that.

        Args:
            reason: why it is no use though it is not wrong (see `filtering.beside.Judged`).
        """
        kept = state == State.CORRECT and reason is None
        problem = self.by_id[id]
        standing, domain = self.standings[id], self.domains[problem.domain]
        standing.on_the_way -= 1
        self.waiting -= 1
        if state == State.UNDECIDED and reason is None:
            standing.undecided += 1
            domain.undecided += 1
            if domain.stuck(self.undecided_share) and not domain.told:
                domain.told = True
                say(
                    f"traces: {domain.undecided} of {domain.decided + domain.undecided} verdicts in the domain "
                    f"'{problem.domain}' are undecided: it is paused (see 'retort verify'; the traces are kept)"
                )
        else:
            standing.kept += kept
            standing.failed += not kept
            domain.decided += 1
            domain.kept += kept
            if domain.decided >= domain.fit_at:
                # Seldom enough that looking at all problems costs little beside their verdicts.
                domain.fit_at = domain.decided + max(FITTED_EVERY, domain.decided // 10)
                domain.prior = fitted(
                    (self.standings[one.id].counts for one in self.problems if one.domain == problem.domain),
                    domain.prior,
                )
        self._ready.append(problem)
        if self._paused and not domain.stuck(self.undecided_share):
            self._ready.extend(one for one in self._paused if one.domain == problem.domain)
            self._paused = [one for one in self._paused if one.domain != problem.domain]

    def gave_up(self, problem: str) -> None:
        """Take a sample that never came; another number of the same problem may be asked instead."""
        self.standings[problem].on_the_way -= 1
        self.waiting -= 1
        self.lost += 1
        self._ready.append(self.by_id[problem])

    def priors(self) -> dict[str, dict[str, float]]:
        """Return how pass rates are spread in each domain, as far as verdicts tell."""
        return {
            name: {"a": round(domain.prior.a, 3), "b": round(domain.prior.b, 3), "mean": round(domain.prior.mean(), 3)}
            for name, domain in self.domains.items()
            if domain.decided
        }

    def hopeless(self) -> list[tuple[Problem, Standing]]:
        """Return the problems that were given up as hopeless, with how they stood."""
        found = ((problem, self.standings[problem.id]) for problem in self.problems)
        return [
            (problem, standing)
            for problem, standing in found
            if self.plan.stops(standing.counts, self.domains[problem.domain].prior) == "hopeless"
        ]

    def ends(self) -> dict[Why | str, int]:
        """Return how many problems ended for which reason; those of a paused domain as "paused"."""
        found: dict[Why | str, int] = {}
        for problem in self.problems:
            domain = self.domains[problem.domain]
            why = self.plan.stops(self.standings[problem.id].counts, domain.prior)
            reason = why or ("paused" if domain.stuck(self.undecided_share) else "undecided")
            found[reason] = found.get(reason, 0) + 1
        return found


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
    stop: Callable[[Tally], bool] = lambda tally: False,
    live: Live | None = None,
    continuing: Continuing | None = None,
    price: Price | None = None,
) -> Sampled:
    """Sample until every problem has what it needs; leave the pool and what was found of it.

    Args:
        endpoints: called when there is something to ask: an engine is started for nothing otherwise.
        stop: asked before each request: whether a budget is spent.
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
                found.append(_row(one, judges) for one in fresh)
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
            trace = trace_of(request, completion, problem, number, settings, model, revision, price)
            wanted.add(trace.id)
            if live is not None and not is_plain(asked.by_id[problem], settings):
                live.saw(trace)
            return trace.to_dict()

        def requests() -> Iterator[Request | None]:
            for request in asked:
                drain()
                if request is not None and stop(tally):
                    return
                yield request

        with Progress("traces", 0) as progress:
            source = _started(requests())
            if source is not None:
                ready = endpoints()
                served = engine()
                seeds = seed if served is None or served.takes_seeds else None

                def trouble(still: Collection[Endpoint]) -> str | None:
                    return (live.trouble() if live else None) or (served.tend(still) if served else None)

                driver = Driver(
                    list(ready),
                    _Judging(traces, beside, asked.by_id),
                    to_row,
                    drive_settings(settings),
                    trouble,
                    starting=served.starting if served else list,
                    listed=listed,
                    loops=loops,
                    follow=continuing.follow if continuing else no_more,
                    refused=continuing.refused if continuing else no_end,
                    note=lambda: live.note(tally, driver.paces, asked) if live else "",
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
