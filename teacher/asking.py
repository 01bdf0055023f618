"""Which sample to ask for next, as the policy has it: by what is known of each problem, while verdicts come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from filtering.references import undecidable
from pipeline.engine import Request
from pipeline.progress import say
from pipeline.records import Problem, State
from teacher.policy import Domain, Plan, Standing, Why, fitted

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
        self._given_up: list[Problem] = []
        """Hopeless ones, by what was known of their domain then."""
        self.never = {problem.id for problem in self.problems if undecidable(problem)}
        """Problems that no verifier can decide: asked `keep` times, for a verdict that may come once one does."""
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
            never = problem.id in self.never
            if domain.stuck(self.undecided_share) and not never:
                self._paused.append(self._ready.popleft())
                continue
            number = self._free(problem.id)
            wanted = self.plan.wants(standing.counts, standing.on_the_way, domain.prior)
            if never:
                wanted = self.plan.keep - len(self.taken.get(problem.id, ()))
            # A sample that nobody could decide is no try, yet it was paid for: `most` bounds both.
            if number is None or wanted <= 0:
                self._ready.popleft()
                if not never and self.plan.stops(standing.counts, domain.prior) == "hopeless":
                    self._given_up.append(problem)
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
        if id in self.never:
            standing.undecided += 1
            return
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
                self._reconsider()
        self._ready.append(problem)
        if self._paused and not domain.stuck(self.undecided_share):
            self._ready.extend(one for one in self._paused if one.domain == problem.domain)
            self._paused = [one for one in self._paused if one.domain != problem.domain]

    def _reconsider(self) -> None:
        """Take up again what is hopeless no more now that more is known of its domain."""
        given_up, self._given_up = self._given_up, []
        for problem in given_up:
            why = self.plan.stops(self.standings[problem.id].counts, self.domains[problem.domain].prior)
            (self._given_up if why == "hopeless" else self._ready).append(problem)

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
        """Return how many problems ended for which reason.

        Beside the plan's own: "paused" with their domain, "undecided" though asked as often as may be, "undecidable" by
        any verifier there is, "unfinished" because a budget ended or the run did.
        """
        found: dict[Why | str, int] = {}
        for problem in self.problems:
            domain = self.domains[problem.domain]
            reason: Why | str | None = self.plan.stops(self.standings[problem.id].counts, domain.prior)
            if problem.id in self.never:
                reason = "undecidable"
            elif reason is None and domain.stuck(self.undecided_share):
                reason = "paused"
            elif reason is None:
                reason = "unfinished" if self._free(problem.id) is not None else "undecided"
            found[reason] = found.get(reason, 0) + 1
        return found
