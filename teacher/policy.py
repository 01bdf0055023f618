"""The sampling policy: how often a problem is asked, and what its tries say of its difficulty.

A problem is sampled until `keep` of its traces are kept, `most` were tried, or its posterior says that trying
on is hopeless. Tries that no verifier could decide are no tries. All here is arithmetic on counts.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Why = Literal["kept", "spent", "hopeless"]
Counts = tuple[int, int]
"""Tries that were kept and tries that were not, of one problem."""


@dataclass(frozen=True)
class Prior:
    """A Beta distribution of pass rates over the problems of a domain."""

    a: float = 0.5
    b: float = 0.5

    def chance(self, counts: Counts, tries: int) -> float:
        """Return the probability of at least one more kept trace in so many further tries."""
        kept, failed = counts
        a, b = self.a + kept, self.b + failed
        return -math.expm1(_log_beta(a, b + tries) - _log_beta(a, b))

    def mean(self, counts: Counts = (0, 0)) -> float:
        """Return the expected pass rate of a problem after these tries."""
        return (self.a + counts[0]) / (self.a + self.b + sum(counts))


@dataclass(frozen=True)
class Plan:
    """When to stop sampling a problem."""

    keep: int
    most: int
    hopeless: float = 0.0
    """Stop where the chance of one more kept trace within `most` falls below; 0 never does."""

    def stops(self, counts: Counts, prior: Prior) -> Why | None:
        """Return why a problem with these counts is sampled no more, or None."""
        kept, failed = counts
        if kept >= self.keep:
            return "kept"
        if kept + failed >= self.most:
            return "spent"
        # One kept trace says that the problem can be solved: only those without are given up.
        if not kept and prior.chance(counts, self.most - failed) < self.hopeless:
            return "hopeless"
        return None

    def wants(self, counts: Counts, on_the_way: int, prior: Prior) -> int:
        """Return how many more samples to ask for now, with so many on their way: never more than can be needed."""
        if self.stops(counts, prior):
            return 0
        return max(0, min(self.keep - counts[0], self.most - sum(counts)) - on_the_way)


def pass_rate(outcomes: Sequence[bool], plan: Plan, prior: Prior) -> float | None:
    """Return a problem's pass rate, free of the bias that stopping brings; None without tries.

    Whoever stops at the second success stops early where luck was good. The estimate counts the ways to
    the point where sampling stopped and returns the share of them that begin with a success (Girshick,
    Mosteller and Savage 1946): (keep - 1) / (tries - 1) where `keep` were kept, kept / tries elsewhere.

    Args:
        outcomes: of the decided tries, by sample number; those beyond the plan's stop are not looked at.
    """
    kept = failed = 0
    for right in outcomes:
        kept, failed = kept + right, failed + (not right)
        if plan.stops((kept, failed), prior):
            break
    if not kept + failed:
        return None
    ways = _ways(plan, prior, kept, failed)
    return _ways(plan, prior, kept, failed, first=True) / ways if ways else kept / (kept + failed)


@lru_cache(maxsize=65536)
def _ways(plan: Plan, prior: Prior, kept: int, failed: int, first: bool = False) -> int:
    """How many orders of tries lead to these counts without stopping before; beginning with a success, if `first`."""
    if kept < 0 or failed < 0:
        return 0
    if kept + failed == 0:
        return 0 if first else 1
    if first and kept + failed == 1:
        return int(kept == 1)
    found = 0
    for before, step in (((kept - 1, failed), kept), ((kept, failed - 1), failed)):
        if step and not plan.stops(before, prior):
            found += _ways(plan, prior, *before, first)
    return found


def fitted(counts: Iterable[Counts], start: Prior | None = None) -> Prior:
    """Return the prior under which these counts are most likely; `start` where there are fewer than 20.

    How sampling stopped does not matter here: the likelihood of counts is the same under every plan.
    """
    seen = Counter(pair for pair in counts if sum(pair))
    if seen.total() < 20:
        return start or Prior()

    def likelihood(mean: float, size: float) -> float:
        a, b = mean * size, (1 - mean) * size
        base = _log_beta(a, b)
        return sum(times * (_log_beta(a + kept, b + failed) - base) for (kept, failed), times in seen.items())

    # Unimodal enough for a search that narrows: 3 rounds of a 9 x 9 grid end within a hundredth.
    low, high, small, large = -4.6, 4.6, math.log(0.1), math.log(50.0)
    mean, size = 0.5, 1.0
    for _ in range(4):
        means = [1 / (1 + math.exp(-(low + (high - low) * step / 8))) for step in range(9)]
        sizes = [math.exp(small + (large - small) * step / 8) for step in range(9)]
        mean, size = max(((m, s) for m in means for s in sizes), key=lambda pair: likelihood(*pair))
        centre, width = math.log(mean / (1 - mean)), (high - low) / 4
        low, high = centre - width / 2, centre + width / 2
        width = (large - small) / 4
        small, large = math.log(size) - width / 2, math.log(size) + width / 2
    return Prior(mean * size, (1 - mean) * size)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@dataclass
class Standing:
    """How a problem stands: its tries, and what became of its samples."""

    kept: int = 0
    failed: int = 0
    undecided: int = 0
    on_the_way: int = 0

    @property
    def counts(self) -> Counts:
        """Return what the plan looks at."""
        return self.kept, self.failed


@dataclass
class Domain:
    """How a domain stands: its prior, and whether so much is undecided that going on would be waste."""

    prior: Prior = field(default_factory=Prior)
    decided: int = 0
    kept: int = 0
    undecided: int = 0
    fit_at: int = 200
    """Verdicts at which the prior is fitted next."""
    told: bool = False

    def stuck(self, share: float, least: int = 50) -> bool:
        """Return whether more than a share of the verdicts, of at least so many, are undecided."""
        all_ = self.decided + self.undecided
        return all_ >= least and self.undecided > share * all_


def by_band(rates: Mapping[str, float], bands: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> dict[str, list[str]]:
    """Return the problems by bands of their pass rates, "0.25-0.5" and so on; those at exactly 0 apart, as "0"."""
    found: dict[str, list[str]] = {"0": []}
    found |= {f"{low:g}-{high:g}": [] for low, high in itertools.pairwise(bands)}
    names = list(found)
    for problem, rate in rates.items():
        place = 0 if rate == 0 else next(n for n, high in enumerate(bands[1:], 1) if rate <= high)
        found[names[place]].append(problem)
    return found
