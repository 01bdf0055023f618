"""What traces cost: where tokens went, what an accepted one came to, and the plan against the fact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.costs import costs, forecast
from pipeline.parts import read_rows


def test_every_token_went_somewhere_and_an_accepted_trace_bears_them_all(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--wrong", "0.4")
    price = ["teacher.price.input=1.0", "teacher.price.output=2.0"]
    path = recipe(engine.url)
    assert retort("plan", path, "--pilot", "30", *price).returncode == 0
    done = retort("run", path, "--until", "dataset", *price)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/small"
    found = costs(run)
    assert found is not None
    traces = list(read_rows(run / "traces"))
    accepted = len(list(read_rows(run / "accepted")))
    went = {row["use"]: row for row in found["uses"]}
    assert went.keys() == {"accepted", "wrong"}
    assert went["accepted"]["traces"] == found["accepted"] == accepted > 60
    assert sum(row["traces"] for row in went.values()) == len(traces) == 180
    assert sum(row["tokens"] for row in went.values()) == found["completion_tokens"]
    assert sum(row["share"] for row in went.values()) == pytest.approx(1.0)
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in traces)
    assert found["tokens_each"] == pytest.approx(tokens / accepted)
    dollars = sum(row["prompt_tokens"] + 2 * row["completion_tokens"] for row in traces) / 1e6
    assert found["dollars_each"] == pytest.approx(dollars / accepted)

    rows = {row["name"]: row for row in forecast(run, found)}
    assert rows["rows"]["fact"] == json.loads((run / "dataset/manifest.json").read_text())["kept"]
    assert rows["completion tokens"]["fact"] == found["completion_tokens"]
    assert rows["dollars"]["fact"] == pytest.approx(dollars)
    for name in ("rows", "completion tokens", "dollars"):
        assert rows[name]["low"] <= rows[name]["fact"] <= rows[name]["high"]


def test_without_a_price_there_are_no_dollars_and_without_a_plan_no_forecast(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    assert retort("run", recipe(standin().url), "--until", "dataset").returncode == 0
    found = costs(tmp_path / "runs/small")
    assert found is not None
    assert (found["dollars"], found["dollars_each"]) == (None, None)
    assert forecast(tmp_path / "runs/small", found) == []


def test_a_run_without_verdicts_has_no_costs(tmp_path: Path) -> None:
    assert costs(tmp_path) is None
