"""Adaptive sampling against the stand-in engine: what is asked, what is kept, and how it goes on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filtering.settings import FilterSettings, VerifySettings
from pipeline.engine import Endpoint, Request
from pipeline.errors import UserError
from pipeline.parts import read_rows
from pipeline.records import Problem
from pipeline.tally import Tally
from teacher.adaptive import JUDGED, Sampled, sample_adaptively
from teacher.asking import Adaptive
from teacher.cost import Price, Spent
from teacher.meter import Meter
from teacher.policy import Plan, Prior
from teacher.settings import SamplingSettings


def problems(count: int, verifier: str = "math") -> list[Problem]:
    return [
        Problem.of(
            [{"role": "user", "content": f"What is {number} plus 1?"}],
            domain="math", source="s", license="MIT", reference=str(number + 1), verifier=verifier,
        )
        for number in range(count)
    ]  # fmt: skip


def sampled(pool: Path, url: str, count: int = 40, verifier: str = "math", **settings: Any) -> Sampled:
    return sample_adaptively(
        problems(count, verifier),
        pool,
        SamplingSettings(**{"samples": 6, "keep": 2, "hopeless": 0.0, **settings}),
        VerifySettings(workers=1),
        FilterSettings(),
        model="m",
        revision="",
        endpoints=lambda: [Endpoint(url, "stand-in")],
        seed=0,
    )


def test_a_problem_is_asked_until_two_are_kept(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--wrong", "0.4")
    found = sampled(tmp_path, engine.url)
    by_problem: dict[str, list[bool]] = {}
    judged = {row["trace_id"]: row["state"] == "correct" for row in read_rows(tmp_path / JUDGED)}
    for row in sorted(read_rows(tmp_path), key=lambda row: row["sample"]):
        by_problem.setdefault(row["problem_id"], []).append(judged[row["id"]])
    assert len(by_problem) == 40
    for outcomes in by_problem.values():
        # Enough, and not one more than was needed: the last is a success, or all six were tried.
        assert (sum(outcomes) == 2 and (len(outcomes) == 2 or sum(outcomes) == 2)) or len(outcomes) == 6
        assert sum(outcomes) <= 2
    assert sum(found.asked.ends().values()) == 40
    assert engine.counts()["answered"] == len(judged) == len(found.wanted) < 6 * 40


def test_a_run_that_goes_on_asks_only_for_what_is_still_needed(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--wrong", "0.4")
    first = sampled(tmp_path, engine.url, samples=3)
    asked = engine.counts()["requests"]
    again = sampled(tmp_path, engine.url, samples=3)
    assert engine.counts()["requests"] == asked
    assert again.wanted == first.wanted
    assert again.asked.ends() == first.asked.ends()
    more = sampled(tmp_path, engine.url, samples=6)
    assert first.wanted < more.wanted
    assert more.asked.ends()["kept"] > first.asked.ends()["kept"]


def test_other_judges_judge_the_pool_again(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin()
    sampled(tmp_path, engine.url)
    asked = engine.counts()["requests"]
    found = sample_adaptively(
        problems(40),
        tmp_path,
        SamplingSettings(samples=6, keep=2, hopeless=0.0),
        VerifySettings(workers=1),
        FilterSettings(rules=[{"rule": "long_paragraph", "max_chars": 5}]),
        model="m",
        revision="",
        endpoints=lambda: [Endpoint(engine.url, "stand-in")],
        seed=0,
    )
    # Not one of them is readable now: all are asked for up to six times.
    assert found.asked.ends() == {"spent": 40}
    assert engine.counts()["requests"] == 6 * 40 > asked
    assert Counter(row["reason"] for row in read_rows(tmp_path / JUDGED)) == {None: 80, "long_paragraph": 240}


def test_hopeless_problems_are_given_up(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--wrong", "1.0")
    found = sampled(tmp_path, engine.url, count=300, samples=30, hopeless=0.2)
    assert found.asked.ends() == {"hopeless": 300}
    assert engine.counts()["answered"] < 300 * 15
    assert found.asked.priors()["math"]["mean"] < 0.1


def test_undecided_verdicts_are_no_tries_and_pause_their_domain(
    tmp_path: Path, standin: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = standin()
    # As if it could be decided, and for whatever reason is not.
    monkeypatch.setattr("teacher.asking.undecidable", lambda problem: False)
    found = sampled(tmp_path, engine.url, count=100, verifier="none such")
    assert found.asked.ends() == {"paused": 100}
    assert all(standing.counts == (0, 0) for standing in found.asked.standings.values())
    assert engine.counts()["answered"] < 6 * 100
    assert "verdicts in the domain 'math' are undecided: it is paused" in capsys.readouterr().err


def test_what_no_verifier_can_decide_is_asked_as_often_as_is_to_be_kept_and_pauses_nothing(
    tmp_path: Path, standin: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    engine = standin()
    for _ in range(2):
        found = sampled(tmp_path, engine.url, count=60, verifier="none such")
        assert found.asked.ends() == {"undecidable": 60}
        assert engine.counts()["answered"] == 2 * 60
    assert "paused" not in capsys.readouterr().err


def test_what_a_budget_left_unasked_is_unfinished_and_not_undecided() -> None:
    asked = Adaptive(problems(10), Plan(2, 4, 0.05), 0.2, lambda problem, number: Request(problem.id, [], {}))
    for _ in range(4):
        assert next(asked) is not None
    assert asked.ends() == {"unfinished": 10}


def test_what_seemed_hopeless_is_taken_up_again_when_more_is_known() -> None:
    asked = Adaptive(problems(3), Plan(1, 8, 0.3), 0.2, lambda problem, number: Request(problem.id, [], {}))
    asked.domains["math"].prior = Prior(0.05, 5.0)
    with pytest.raises(StopIteration):
        next(asked)
    assert asked.ends() == {"hopeless": 3}
    asked.domains["math"].prior = Prior(5.0, 5.0)
    asked._reconsider()
    assert asked.hopeless() == []
    assert next(asked) is not None


def test_given_up_samples_are_missing_and_named(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--faults", "500=0.7", "--seed", "2")
    with pytest.raises(UserError, match=r"traces: \d+ of \d+ samples were given up after 2 attempts"):
        sampled(tmp_path, engine.url, attempts=2)
    held = list(read_rows(tmp_path))
    assert held and len(held) == len(list(read_rows(tmp_path / JUDGED)))


def test_an_adaptive_run_by_command(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--wrong", "0.3")
    done = retort("run", recipe(engine.url), "--until", "dataset", "sampling.keep=1", "sampling.samples=4")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "runs/small/traces/manifest.json").read_text())
    assert manifest["facts"]["teacher"]["problems"]["kept"] > 50
    asked = engine.counts()["answered"]
    assert manifest["kept"] == asked < 4 * 60
    # What is kept depends on the filter: with another one, sampling goes on where it has to.
    stricter = ['filter.rules=[{rule="long_paragraph", max_chars=20}]', "sampling.keep=1", "sampling.samples=4"]
    assert retort("run", tmp_path / "small.toml", "--until", "traces", *stricter).returncode == 0
    assert engine.counts()["answered"] > asked


def test_a_budget_of_tokens_stops_the_stage_cleanly_and_more_of_it_goes_on(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--latency", "0.05")
    path = recipe(engine.url)
    done = retort("run", path, "--until", "traces", "sampling.budget_tokens=1500", "sampling.concurrency=4")
    assert done.returncode == 0, done.stderr
    assert "traces: sampling.budget_tokens = 1500 is spent; " in done.stderr
    manifest = json.loads((tmp_path / "runs/small/traces/manifest.json").read_text())
    # About 30 tokens each: some 50 of 180.
    assert 30 < manifest["kept"] == engine.counts()["answered"] < 80
    assert manifest["dropped"] == {"over_budget": 180 - manifest["kept"]}
    assert 1300 < manifest["facts"]["tokens_now"] < 1800
    assert retort("run", path, "--until", "traces").returncode == 0
    assert engine.counts()["answered"] == 180


def test_a_budget_in_what_has_no_price_is_an_error(
    standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    done = retort("run", recipe(standin().url), "--until", "traces", "sampling.budget_dollars=1")
    assert done.returncode == 2
    assert "sampling.budget_dollars needs a price, and the price book knows none for the teacher: set" in done.stderr


def test_traces_without_any_thought_stop_the_run_at_once(
    standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--no-thought", "--latency", "0.2")
    path = recipe(engine.url)
    done = retort("run", path, "--until", "traces", "sampling.samples=8")
    assert done.returncode == 2
    assert "traces holds a thought (they are kept): set sampling.prefill" in done.stderr.splitlines()[-1]
    assert 20 <= engine.counts()["answered"] < 480
    assert retort("run", path, "--until", "traces", "sampling.canary=0").returncode == 0


def test_what_is_cut_off_is_a_try_that_failed_and_pauses_nothing(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin()
    found = sampled(tmp_path, engine.url, count=60, max_tokens=4, samples=3)
    assert found.asked.ends() == {"spent": 60}
    assert {row["reason"] for row in read_rows(tmp_path / JUDGED)} == {"truncated"}
    # So it is when the run goes on.
    assert sampled(tmp_path, engine.url, count=60, max_tokens=4, samples=3).asked.ends() == {"spent": 60}
    assert engine.counts()["answered"] == 180


def test_pass_rates_are_those_of_the_teacher_though_sampling_stops_at_what_is_kept(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    found = sampled(tmp_path, standin("--wrong", "0.5").url, count=400, samples=8)
    kept = sum(standing.kept for standing in found.asked.standings.values())
    tries = sum(sum(standing.counts) for standing in found.asked.standings.values())
    # 400 estimates of one in two, each from about four tries: a standard error below two points. Per problem, kept
    # among tries is too high by a tenth, as sampling stops where luck was good.
    assert found.pass_rates["math"] == pytest.approx(0.5, abs=0.06)
    assert 0 < kept < tries


def test_hopeless_problems_are_listed(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--wrong", "1.0")
    asked = ["sampling.keep=1", "sampling.samples=30", "sampling.hopeless=0.3", "sampling.concurrency=4"]
    assert retort("run", recipe(engine.url), "--until", "traces", *asked).returncode == 0
    lines = (tmp_path / "runs/small/traces/hopeless-teacher.jsonl").read_text().splitlines()
    ends = json.loads((tmp_path / "runs/small/traces/manifest.json").read_text())["facts"]["teacher"]["problems"]
    assert len(lines) == ends["hopeless"] > 0
    assert {"problem_id", "tries", "question"} == json.loads(lines[0]).keys()


def test_a_budget_counts_what_earlier_starts_have_spent(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin("--latency", "0.05")
    path = recipe(engine.url)
    first = ["sampling.samples=1", "sampling.concurrency=4"]
    assert retort("run", path, "--until", "traces", *first).returncode == 0
    spent = json.loads((tmp_path / "runs/small/traces/spent.json").read_text())["tokens"]
    assert spent > 1000
    again = retort("run", path, "--until", "traces", "sampling.samples=3", f"sampling.budget_tokens={spent}")
    assert again.returncode == 0
    assert f"sampling.budget_tokens = {spent} is spent" in again.stderr
    assert engine.counts()["answered"] == 60


def test_rent_is_not_multiplied_by_what_is_on_its_way(tmp_path: Path) -> None:
    meter = Meter(SamplingSettings(budget_dollars=100.0), tmp_path / "spent.json")
    with meter.running(Price(None, None, 8, 2.0), 1000):
        assert meter.gate(Tally()) == "ask"
        meter._begun = time.monotonic() - 3600  # an hour of eight GPUs: 16 dollars
        for _ in range(2000):
            assert meter.gate(Tally(came=1, prompt_tokens=10, completion_tokens=100)) == "ask"
        meter._begun = time.monotonic() - 7 * 3600
        assert meter.gate(Tally(came=1)) == "stop"
    assert meter.over == "sampling.budget_dollars = 100 is spent"
    assert Spent.kept_in(tmp_path / "spent.json").dollars == pytest.approx(112, abs=0.1)


def test_what_is_on_its_way_makes_others_wait_and_does_not_end_the_run(tmp_path: Path) -> None:
    meter = Meter(SamplingSettings(budget_tokens=100_000), tmp_path / "spent.json")
    with meter.running(Price(1.0, 1.0, 0, None), 10_000):
        tally = Tally()
        # Nothing has come: each is taken to be as long as it may be.
        assert [meter.gate(tally) for _ in range(12)] == ["ask"] * 10 + ["wait"] * 2
        # They come, a tenth as long: there is room for many more.
        tally.came, tally.completion_tokens = 10, 10_000
        asked = [meter.gate(tally) for _ in range(100)].count("ask")
        assert 40 < asked < 60
        tally.came, tally.completion_tokens = 10 + asked, 99_990
        assert [meter.gate(tally) for _ in range(2)] == ["ask", "wait"]
        assert not meter.over
        tally.came, tally.completion_tokens = 11 + asked, 100_990
        assert meter.gate(tally) == "stop"
    assert Spent.kept_in(tmp_path / "spent.json").tokens == 100_990


def test_what_was_spent_is_kept_however_sampling_ends(tmp_path: Path) -> None:
    meter = Meter(SamplingSettings(), tmp_path / "spent.json")
    with pytest.raises(UserError), meter.running(Price(1.0, 1.0, 0, None), 10):
        meter.gate(Tally(came=1, completion_tokens=77, wasted=3))
        raise UserError("the engine is gone")
    assert Spent.kept_in(tmp_path / "spent.json").tokens == 80
