"""Sampling into several pools at once, against the stand-in engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filtering.rules import Dropped, first_reason
from pipeline.engine import Endpoint
from pipeline.errors import UserError
from pipeline.parts import read_rows
from pipeline.records import Problem, Trace
from teacher.cost import Price
from teacher.sampling import Ask, messages_for, request_for, sample, template_hash, wanted_ids
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


def test_a_trace_tells_its_engine_and_its_cost(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--slots", "5", "--latency", "0.3")
    ask = Ask([problem(n) for n in range(30)], tmp_path, SamplingSettings(samples=1, concurrency=5))
    endpoints = [Endpoint(engine.url, "stand-in")]
    sample([ask], model="m", revision="", endpoints=endpoints, seed=0, what="x", price=Price(2.0, 10.0, 0, None))
    rows = sorted(read_rows(tmp_path), key=lambda row: row["started"])
    # It is known once /metrics was asked for, in the first seconds.
    assert rows[-1]["engine"] == "vllm 0.0-standin"
    for row in rows:
        assert row["cost"] == pytest.approx((2.0 * row["prompt_tokens"] + 10.0 * row["completion_tokens"]) / 1e6)


def test_a_domain_may_have_its_own_teacher_and_prompt(
    tmp_path: Path, standin: Callable[..., Any], retort: Callable[..., Any]
) -> None:
    reasoner, writer = standin("--key", "one"), standin("--model", "writer")
    rows = [
        *({"question": f"What is {n} plus 1?", "answer": str(n + 1), "kind": "math"} for n in range(4)),
        {"question": "Hi, 1 and 1!", "answer": "2", "kind": "general"},
        {"question": "Write me a long poem on 2 and 2, please.", "answer": "4", "kind": "general"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.toml").write_text(
        f"""
name = "r"
[problems]
path = "rows.jsonl"
domain_column = "kind"
[teacher]
model = "stand-in"
endpoints = ["{reasoner.url}"]
api_key_env = "ONE"
[teacher.domains.general]
model = "writer"
endpoints = ["{writer.url}"]
sampling = {{ prompt = "Think first. {{question}}", prompt_source = "ours", plain_up_to = 20, samples = 1 }}
[sampling]
samples = 2
"""
    )
    done = retort("run", "r.toml", "--until", "traces", ONE="one")
    assert done.returncode == 0, done.stderr
    traces = list(read_rows(tmp_path / "runs/r/traces"))
    assert sorted(row["teacher"] for row in traces) == ["stand-in"] * 8 + ["writer"] * 2
    assert len({row["template"] for row in traces}) == 2
    assert (reasoner.counts()["answered"], writer.counts()["answered"]) == (8, 2)
    again = retort("run", "r.toml", "--until", "traces", ONE="one")
    assert "traces: up to date" in again.stderr


def general(text: str) -> Problem:
    return Problem.of(
        [{"role": "user", "content": text}],
        domain="general", source="s", license="l", reference=None, verifier="exact",
    )  # fmt: skip


def test_short_questions_are_asked_as_they_are() -> None:
    settings = SamplingSettings(
        system="Be wise.", prompt="Think first. {question}", prefill="<think>\n", plain_up_to=10
    )
    hello, long = general("Hello!"), general("Write me a poem.")
    assert messages_for(hello, settings) == [{"role": "user", "content": "Hello!"}]
    assert [turn["role"] for turn in messages_for(long, settings)] == ["system", "user", "assistant"]
    assert "continue_final_message" not in request_for("a", hello, settings, None).params
    assert request_for("b", long, settings, None).params["continue_final_message"] is True
    rules: list[dict[str, object]] = [{"rule": "thought_missing", "plain_up_to": 10}]
    answered = Trace.from_dict(dict.fromkeys(Trace.SCHEMA.names) | {"answer": "Hi.", "text": "Hi."})
    assert first_reason(rules, hello, answered) is None
    assert first_reason(rules, long, answered) == Dropped("thought_missing")


def test_further_fields_of_the_request_are_part_of_what_a_trace_is() -> None:
    thinking = SamplingSettings(extra_body={"chat_template_kwargs": {"thinking": True}})
    assert template_hash(thinking) != template_hash(SamplingSettings())
    assert "extra_body" in thinking.result_settings()


@pytest.mark.parametrize("url", ["ftp://h/v1", "http://h:80O0/v1", "http://h:99999/v1", "http:///v1"])
def test_an_url_that_is_none_is_one_line(tmp_path: Path, retort: Callable[..., Any], url: str) -> None:
    (tmp_path / "r.toml").write_text(f'name = "r"\n[teacher]\nmodel = "m"\nendpoints = ["{url}"]\n')
    done = retort("run", "r.toml")
    assert done.returncode == 2
    assert "r.toml: teacher.endpoints" in done.stderr and url in done.stderr
    assert "Traceback" not in done.stderr
