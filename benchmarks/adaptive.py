"""Adaptive sampling against fixed numbers of samples: tokens for each trace that is kept, on the bundled teacher.

`make bench-adaptive` samples the demo's problems 16 times each, judges all of it, and goes through that pool again
under every plan: what `sampling.keep = 2` would have asked for, and what each fixed number of samples would have. No
token is simulated: a plan takes the pool's own traces in their order. Keeps results/adaptive.json.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Figure, keep
from pipeline.cli import main as retort
from pipeline.parts import read_rows
from teacher.policy import Plan, Prior, by_band, fitted

RECIPE = "recipes/demo.toml"
RUN = Path("runs/bench-adaptive")
MOST = 16
KEEP = 2
HOPELESS = 0.05
"""As the recipes' default (`sampling.hopeless`)."""
WITHIN = 0.01
"""Of the problems: how far coverage may differ."""
COMMAND = "make bench-adaptive"


@dataclass(frozen=True)
class Try:
    """A trace of the pool: whether the filter kept it (None where undecided), and its tokens."""

    kept: bool | None
    tokens: int


Pool = Mapping[str, Sequence[Try]]


@dataclass
class Came:
    """What a plan comes to on a pool."""

    tokens: int = 0
    kept: int = 0
    covered: int = 0
    hopeless: int = 0

    @property
    def each(self) -> float:
        """Return tokens for a kept trace."""
        return self.tokens / self.kept if self.kept else float("inf")


def main(overrides: list[str]) -> int:
    """Sample, replay, keep the results; return the exit status."""
    wanted = ["run", RECIPE, "--run", str(RUN), "--until", "filter", f"sampling.samples={MOST}"]
    if status := retort([*wanted, *overrides]):
        return status
    pool = pool_of(RUN)
    domains = {row["id"]: row["domain"] for row in read_rows(RUN / "problems")}
    plan = Plan(KEEP, MOST, HOPELESS)
    # What a run knows of a domain once every problem in it was asked for KEEP samples.
    priors = {
        domain: fitted(counts_of(tries[:KEEP]) for problem, tries in pool.items() if domains[problem] == domain)
        for domain in set(domains.values())
    }
    ours = adaptive(pool, plan, {problem: priors[domains[problem]] for problem in pool})
    fixed = {number: fixed_number(pool, number) for number in range(1, MOST + 1)}
    reach = {number: came for number, came in fixed.items() if came.covered >= ours.covered - WITHIN * len(pool)}
    best = min(reach, key=lambda number: reach[number].each)
    peer, theirs = f"fixed n = {best}", reach[best]
    of = f"of {len(pool)}"
    figures = [
        Figure("tokens a kept trace", ours.each, "tokens", COMMAND, peer, theirs.each, theirs.each / ours.each),
        Figure("problems covered", ours.covered, of, COMMAND, peer, theirs.covered),
        Figure("hopeless problems", ours.hopeless, of, COMMAND),
    ]
    rates = {problem: rate for problem, tries in pool.items() if (rate := rate_of(tries)) is not None}
    for band, problems in by_band(rates).items():
        some = {problem: pool[problem] for problem in problems}
        mine = adaptive(some, plan, {problem: priors[domains[problem]] for problem in some})
        theirs = fixed_number(some, best)
        if mine.kept and theirs.kept:
            what = f"tokens a kept trace, pass rate {band} ({len(some)} problems)"
            figures.append(Figure(what, mine.each, "tokens", COMMAND, peer, theirs.each, theirs.each / mine.each))
        elif some:
            what = f"tokens spent, pass rate {band} ({len(some)} problems)"
            figures.append(Figure(what, mine.tokens, "tokens", COMMAND, peer, theirs.tokens))
    for number, came in fixed.items():
        figures.append(Figure(f"fixed n = {number}: tokens a kept trace", came.each, "tokens", COMMAND))
        figures.append(Figure(f"fixed n = {number}: problems covered", came.covered, f"of {len(pool)}", COMMAND))
    for figure in figures:
        print(figure.figure, figure.value, figure.unit, figure.peer or "", figure.peer_value or "", figure.ratio or "")
    print(keep("adaptive", figures))
    return 0


def pool_of(run: Path) -> dict[str, list[Try]]:
    """Return the tries of each problem of a run, by sample number."""
    kept = {row["id"] for row in read_rows(run / "accepted", columns=["id"])}
    states = {row["trace_id"]: row["state"] for row in read_rows(run / "verdicts", columns=["trace_id", "state"])}
    found: defaultdict[str, list[tuple[int, Try]]] = defaultdict(list)
    for row in read_rows(run / "traces", columns=["id", "problem_id", "sample", "completion_tokens"]):
        outcome = None if states[row["id"]] == "undecided" else row["id"] in kept
        found[row["problem_id"]].append((row["sample"], Try(outcome, row["completion_tokens"])))
    return {problem: [one for _, one in sorted(tries, key=lambda pair: pair[0])] for problem, tries in found.items()}


def counts_of(tries: Sequence[Try]) -> tuple[int, int]:
    """Return how many tries were kept and how many were not."""
    return sum(one.kept is True for one in tries), sum(one.kept is False for one in tries)


def rate_of(tries: Sequence[Try]) -> float | None:
    """Return the share of decided tries that were kept, None where none was decided."""
    kept, failed = counts_of(tries)
    return kept / (kept + failed) if kept + failed else None


def adaptive(pool: Pool, plan: Plan, priors: Mapping[str, Prior]) -> Came:
    """Return what the plan comes to: each problem until it stops."""
    came = Came()
    for problem, tries in pool.items():
        kept = failed = 0
        for one in tries:
            if plan.stops((kept, failed), priors[problem]):
                break
            came.tokens += one.tokens
            kept += one.kept is True
            failed += one.kept is False
        came.kept += kept
        came.covered += kept > 0
        came.hopeless += plan.stops((kept, failed), priors[problem]) == "hopeless"
    return came


def fixed_number(pool: Pool, number: int) -> Came:
    """Return what so many samples of every problem come to; at most KEEP of them are used."""
    came = Came()
    for tries in pool.values():
        taken = tries[:number]
        came.tokens += sum(one.tokens for one in taken)
        right = sum(one.kept is True for one in taken)
        came.kept += min(KEEP, right)
        came.covered += right > 0
    return came


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
