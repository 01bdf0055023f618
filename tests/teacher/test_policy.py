"""The sampling policy: when it stops, and that what it says of difficulty is unbiased."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean

import pytest

from teacher.policy import Domain, Plan, Prior, by_band, fitted, pass_rate

FLAT = Prior(1.0, 1.0)


def test_a_problem_stops_when_enough_is_kept_or_all_is_spent() -> None:
    plan = Plan(keep=2, most=5)
    assert plan.stops((2, 0), FLAT) == "kept"
    assert plan.stops((1, 4), FLAT) == "spent"
    assert plan.stops((0, 4), FLAT) is None
    assert plan.stops((1, 3), FLAT) is None


def test_no_more_is_asked_than_can_be_needed() -> None:
    plan = Plan(keep=2, most=5)
    assert plan.wants((0, 0), 0, FLAT) == 2
    assert plan.wants((0, 0), 2, FLAT) == 0
    assert plan.wants((1, 2), 0, FLAT) == 1
    assert plan.wants((0, 4), 0, FLAT) == 1
    assert plan.wants((2, 1), 0, FLAT) == 0


def test_a_problem_is_hopeless_where_nothing_was_kept_and_the_chance_is_small() -> None:
    plan = Plan(keep=2, most=16, hopeless=0.2)
    easy = Prior(8.0, 2.0)
    hard = Prior(0.1, 2.0)
    # Under Beta(0.1, 2) after 8 failures, 8 more: 1 - 10/10.1 * 11/11.1 * ... * 17/17.1.
    assert hard.chance((0, 8), 8) == pytest.approx(1 - math.prod(b / (b + 0.1) for b in range(10, 18)))
    assert plan.stops((0, 8), hard) == "hopeless"
    assert plan.stops((1, 8), hard) is None
    assert plan.stops((0, 8), easy) is None


def test_the_chance_of_one_more_is_that_of_the_beta_binomial() -> None:
    assert FLAT.chance((0, 0), 1) == pytest.approx(0.5)
    assert FLAT.chance((0, 0), 3) == pytest.approx(0.75)  # 1 - 1/4
    assert FLAT.chance((2, 1), 0) == pytest.approx(0.0)
    assert FLAT.mean((2, 1)) == pytest.approx(0.6)


def outcomes(draw: Callable[[], bool], plan: Plan, prior: Prior) -> list[bool]:
    """One problem sampled by the plan, try after try."""
    found: list[bool] = []
    while plan.stops((sum(found), len(found) - sum(found)), prior) is None:
        found.append(draw())
    return found


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("plan", [Plan(2, 8), Plan(3, 12), Plan(2, 16, hopeless=0.3)])
def test_pass_rates_are_unbiased_where_the_plain_share_is_not(rate: float, plan: Plan) -> None:
    rng = random.Random(7)
    prior = Prior(0.3, 0.7)
    runs = [outcomes(lambda: rng.random() < rate, plan, prior) for _ in range(20_000)]
    estimate = fmean(found for run in runs if (found := pass_rate(run, plan, prior)) is not None)
    plain = fmean(sum(run) / len(run) for run in runs)
    assert estimate == pytest.approx(rate, abs=0.01)
    if rate > 0.1:
        assert plain > rate + 0.02


def test_the_textbook_cases_of_the_estimate() -> None:
    plan = Plan(keep=2, most=6)
    assert pass_rate([True, True], plan, FLAT) == 1.0
    assert pass_rate([False, True, False, True], plan, FLAT) == pytest.approx(1 / 3)  # (2 - 1) / (4 - 1)
    assert pass_rate([True] + 5 * [False], plan, FLAT) == pytest.approx(1 / 6)
    assert pass_rate(6 * [False], plan, FLAT) == 0.0
    assert pass_rate([], plan, FLAT) is None
    # What came beyond the stop says nothing new.
    assert pass_rate([True, True, False, False], plan, FLAT) == 1.0


def test_a_prior_is_found_again_from_stopped_counts() -> None:
    rng = random.Random(3)
    true = Prior(0.8, 1.6)
    plan = Plan(2, 8)
    counts = []
    for _ in range(3000):
        rate = rng.betavariate(true.a, true.b)
        run = outcomes(lambda rate=rate: rng.random() < rate, plan, true)  # type: ignore[misc]
        counts.append((sum(run), len(run) - sum(run)))
    found = fitted(counts)
    assert found.mean() == pytest.approx(true.mean(), abs=0.02)
    assert found.a + found.b == pytest.approx(2.4, rel=0.25)


def test_few_counts_leave_the_prior_as_it_was() -> None:
    assert fitted([(1, 1)] * 19, Prior(2.0, 3.0)) == Prior(2.0, 3.0)
    assert fitted([(0, 0)] * 100) == Prior()


def test_a_domain_is_stuck_over_its_share_of_undecided_verdicts() -> None:
    assert not Domain(decided=30, undecided=19).stuck(0.2)
    assert Domain(decided=30, undecided=20).stuck(0.2)
    assert not Domain(decided=80, undecided=20).stuck(0.2)


def test_problems_by_bands() -> None:
    assert by_band({"a": 0.0, "b": 0.1, "c": 0.25, "d": 0.26, "e": 1.0}) == {
        "0": ["a"],
        "0-0.25": ["b", "c"],
        "0.25-0.5": ["d"],
        "0.5-0.75": [],
        "0.75-1": ["e"],
    }
