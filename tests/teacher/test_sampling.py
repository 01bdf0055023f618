"""Sampling into several pools at once, against the stand-in engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import Endpoint
from pipeline.errors import UserError
from pipeline.parts import read_rows
from pipeline.records import Problem
from teacher.sampling import Ask, sample, wanted_ids
from teacher.settings import SamplingSettings


def problem(number: int) -> Problem:
    return Problem.of(
        [{"role": "user", "content": f"What is {number} plus 1?"}],
        domain="math", source="s", license="MIT", reference=str(number + 1), verifier="math",
    )  # fmt: skip


def asked(folder: Path) -> list[Ask]:
    """Two pools; problems 3 and 4 are wanted by both, by the second more often."""
    return [
        Ask([problem(n) for n in range(5)], folder / "one", SamplingSettings(samples=1, max_tokens=50)),
        Ask([problem(n) for n in range(3, 8)], folder / "two", SamplingSettings(samples=2, max_tokens=50)),
    ]


def ids(pool: Path) -> list[str]:
    return sorted(row["id"] for row in read_rows(pool))


def fill(asks: list[Ask], url: str) -> int:
    endpoints = [Endpoint(url, "stand-in")]
    return sample(asks, model="m", revision="", endpoints=endpoints, seed=0, what="two pools").finished


def test_each_pool_gets_its_own_and_what_both_want_is_sampled_once(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin()
    asks = asked(tmp_path)
    assert fill(asks, engine.url) == 5 + 10 - 2
    assert engine.counts()["answered"] == 13
    for ask in asks:
        assert ids(ask.pool) == sorted(wanted_ids(ask.problems, "m", "", ask.settings))
        assert list(ask.pool.glob("part-*.parquet"))
    assert fill(asks, engine.url) == 0
    assert engine.counts()["answered"] == 13


def test_a_pool_that_has_its_share_is_not_given_it_again(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin()
    first, second = asked(tmp_path)
    assert fill([first], engine.url) == 5
    assert fill([first, second], engine.url) == 10
    assert [len(ids(ask.pool)) for ask in (first, second)] == [5, 10]


def test_what_came_back_for_any_pool_is_kept_when_others_are_given_up(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    engine = standin("--faults", "500=0.5", "--seed", "4")
    asks = [Ask(ask.problems, ask.pool, ask.settings.model_copy(update={"attempts": 2})) for ask in asked(tmp_path)]
    with pytest.raises(UserError, match="two pools: .* of 13 samples were given up after 2 attempts"):
        fill(asks, engine.url)
    kept = sum(len(ids(ask.pool)) for ask in asks)
    assert 0 < kept < 15
