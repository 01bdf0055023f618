"""`retort plan`: what a quota lacks, and what a pilot predicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.parts import read_rows
from pipeline.recipe import load_recipe
from pipeline.records import Problem
from teacher.cost import Price, PriceSettings, price_of, uses
from teacher.plan import Piloted, Rate, pilot_of, predict, quota_lines
from teacher.quota import coverage
from teacher.source_settings import ProblemsSettings

ROOT = Path(__file__).resolve().parent.parent.parent


def problem(number: int, domain: str) -> Problem:
    return Problem.of(
        [{"role": "user", "content": f"{domain} {number}"}],
        domain=domain, source="s", license="l", reference="1", verifier="math",
    )  # fmt: skip


def test_a_quota_names_what_is_short() -> None:
    settings = ProblemsSettings.model_validate(
        {
            "quota": {"math": 100, "code": 50},
            "sources": [
                {"source": "a/b", "domain": "math", "prompts": 100, "expected_yield": 0.5},
                {"source": "c/d", "domain": "math", "prompts": 40, "expected_yield": 0.5, "limit": 20},
                {"source": "e/f", "domain": "code", "prompts": 20, "expected_yield": 0.5},
                {"source": "g/h", "domain": "code"},
            ],
        }
    )
    math, code = coverage(settings, {"math": 2, "code": 2})
    assert (math.prompts, math.expected, math.short) == (120, 120, 0)
    assert (code.prompts, code.expected, code.short, code.unknown) == (20, 20, 30, ("g/h",))


def test_the_800k_recipe_asks_for_the_published_set_and_names_what_is_short() -> None:
    recipe = load_recipe(ROOT / "recipes/r1-800k.toml")
    quota = recipe[ProblemsSettings].quota
    assert sum(quota.values()) == 804_745
    assert sum(count for domain, count in quota.items() if domain != "general") == 626_933
    lines = quota_lines(recipe)
    # No verifier runs programs over standard input yet; and there is no judge for what has no reference.
    assert (
        "code: 0 prompts, 0 rows expected of 211,129: SHORT of 211,129; no verifier decides "
        "open-r1/verifiable-coding-problems-python, BAAI/TACO yet" in lines
    )
    assert (
        "general: 0 prompts, 0 rows expected of 177,812: SHORT of 177,812; no verifier decides "
        "allenai/tulu-3-sft-mixture yet" in lines
    )


def test_the_pilot_has_enough_of_every_domain() -> None:
    problems = [problem(n, "math") for n in range(900)] + [problem(n, "logic") for n in range(100)]
    problems += [problem(n, "stem") for n in range(5)]
    chosen = Counter(one.domain for one in pilot_of(problems, 100, seed=1))
    assert chosen == {"math": 90, "logic": 20, "stem": 5}
    assert pilot_of(problems, 100, seed=1) == pilot_of(problems, 100, seed=1) != pilot_of(problems, 100, seed=2)


def test_a_prediction_scales_the_pilot_by_domain_and_its_interval_holds_the_truth() -> None:
    piloted = [Piloted("math", n % 2, 10, 100) for n in range(100)] + [Piloted("code", 1, 20, 300) for _ in range(50)]
    rate = Rate(Price(1.0, 10.0, 8, 2.0), tokens_per_second=100.0)
    found = predict(piloted, Counter(math=1000, code=200), {"math": rate, "code": rate})
    assert found["rows"].value == 0.5 * 1000 + 200
    assert found["rows, math"].value == 500
    assert found["rows"].low < 700 < found["rows"].high
    # 100 draws of one in two: a standard error of 0.05, twice that and a bit to either side.
    assert found["rows, math"].high - found["rows, math"].low == pytest.approx(2 * 1.96 * 0.05 * 1000, rel=0.15)
    tokens = 1000 * 100 + 200 * 300
    assert found["completion tokens"].value == tokens
    assert found["GPU-hours"].value == pytest.approx(8 * tokens / 100 / 3600)
    cost = (1000 * 10 + 200 * 20) / 1e6 + 10 * tokens / 1e6 + 2 * 8 * tokens / 100 / 3600
    assert found["dollars"].value == pytest.approx(cost)
    assert found["dollars a row"].value == pytest.approx(cost / 700)


def test_nothing_has_a_price_that_was_not_given() -> None:
    free = Price(None, None, 0, None)
    found = predict([Piloted("math", 1, 1, 1)], Counter(math=1), {"math": Rate(free, None)})
    assert not {"dollars", "hours", "GPU-hours"} & found.keys()
    found = predict([Piloted("math", 1, 1, 1)], Counter(math=1), {"math": Rate(free, 10.0)})
    assert found.keys() & {"dollars", "hours", "GPU-hours"} == {"hours"}


def test_each_domain_costs_what_its_own_teacher_costs() -> None:
    piloted = [Piloted("math", 1, 10, 100)] * 30 + [Piloted("general", 1, 20, 300)] * 30
    rented, by_token = Rate(Price(None, None, 8, 2.0), 50.0), Rate(Price(1.0, 10.0, 0, None), 200.0)
    found = predict(piloted, Counter(math=1000, general=200), {"math": rented, "general": by_token})
    seconds = 1000 * 100 / 50
    assert found["hours"].value == pytest.approx((seconds + 200 * 300 / 200) / 3600)
    assert found["GPU-hours"].value == pytest.approx(8 * seconds / 3600)
    assert found["dollars"].value == pytest.approx(2 * 8 * seconds / 3600 + (200 * 20 + 10 * 200 * 300) / 1e6)
    # What is paid by the hour is not told where the hours are not.
    unknown = {"math": Rate(rented.price, None), "general": by_token}
    assert not {"hours", "GPU-hours", "dollars"} & predict(piloted, Counter(math=1000, general=200), unknown).keys()


def test_the_price_book_knows_a_model_by_its_name_and_a_recipe_overrules_it() -> None:
    assert price_of(PriceSettings(), "", "deepseek-ai/DeepSeek-R1").of_tokens(1_000_000, 1_000_000) == 0.55 + 2.19
    assert price_of(PriceSettings(input=1.0), "DeepSeek-R1").of_tokens(2_000_000, 5) == 2.0
    assert price_of(PriceSettings(), "a/model").of_tokens(1, 1) is None


def test_where_tokens_went() -> None:
    rows = [
        {"id": id, "finish_reason": finish, "completion_tokens": tokens}
        for id, finish, tokens in (
            ("a", "stop", 1), ("b", "stop", 2), ("c", "stop", 4),
            ("d", "length", 8), ("e", "loop", 16), ("f", "stop", 32),
        )
    ]  # fmt: skip
    states: dict[str, tuple[str, str | None]] = {
        "a": ("correct", None), "b": ("wrong", None), "c": ("correct", "code_fence"), "d": ("wrong", None),
        "e": ("undecided", None), "f": ("undecided", None),
    }  # fmt: skip
    assert uses(rows, states)["tokens"] == {
        "accepted": 1, "wrong": 2, "unreadable": 4, "truncated": 8, "cut": 16, "undecided": 32,
    }  # fmt: skip


def test_a_pilot_by_command_predicts_and_its_traces_are_the_runs_own(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--wrong", "0.5")
    path = recipe(engine.url)
    price = ["teacher.price.input=1.0", "teacher.price.output=2.0"]
    done = retort("plan", path, "--pilot", "20", *price)
    assert done.returncode == 0, done.stderr
    assert "pilot: 20 of 60 problems, 60 traces sampled now" in done.stdout
    assert engine.counts()["answered"] == 60
    found = json.loads((tmp_path / "runs/small/plan.json").read_text())
    predicted = found["predicted"]
    done = retort("run", path, "--until", "dataset", *price)
    assert done.returncode == 0, done.stderr
    # Nothing of the pilot is asked again.
    assert engine.counts()["answered"] == 180
    rows = json.loads((tmp_path / "runs/small/dataset/manifest.json").read_text())["kept"]
    assert predicted["rows"]["low"] <= rows <= predicted["rows"]["high"]
    tokens = sum(row["completion_tokens"] for row in read_rows(tmp_path / "runs/small/traces"))
    assert predicted["completion tokens"]["value"] == pytest.approx(tokens, rel=0.1)
    assert "dollars" in predicted
    # Traces of other settings, which the pool holds by now, are no part of what these would give.
    done = retort("plan", path, "--pilot", "20", "sampling.temperature=0.3", *price)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "runs/small/plan.json").read_text())
    assert sum(again["traces_by_use"].values()) == 60
