"""Traces that their budget cut off are continued from where they stopped, once, and never asked anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import Completion, Request
from pipeline.parts import read_rows
from teacher import serve
from teacher.continuing import UNFINISHED, Continuing
from teacher.cost import Price
from teacher.families import as_problem, exercises
from teacher.sampling import Ask, sample, trace_of
from teacher.settings import EngineSettings, SamplingSettings

# The stand-in's answers are some 80 characters, 20 of its tokens, and close their thought at about the twelfth.


def traces(folder: Path) -> list[dict[str, Any]]:
    return list(read_rows(folder / "runs/small/traces"))


def test_a_thought_that_was_cut_off_goes_on_in_the_same_trace(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin()
    cut = ["sampling.max_tokens=8", "sampling.samples=1", "filter.rules=[]"]
    done = retort("run", recipe(engine.url), "--until", "verify", *cut, "sampling.continue_tokens=50")
    assert done.returncode == 0, done.stderr
    assert engine.counts()["continued"] == 60
    rows = traces(tmp_path)
    assert len(rows) == 60
    for row in rows:
        assert row["finish_reason"] == "stop"
        assert row["text"].startswith("<think>\nI add the numbers") and row["text"].endswith("}.")
        assert row["text"].count("<think>") == 1
        assert (row["attempts"], row["max_tokens"]) == (2, 58)
        assert row["completion_tokens"] == 8 + (len(row["text"]) - 32) // 4
    manifest = json.loads((tmp_path / "runs/small/verdicts/manifest.json").read_text())
    assert manifest["facts"]["correct"] == 60


@pytest.mark.parametrize("options", [(), ("--opens",)])
def test_an_engine_that_renders_conversations_goes_on_whatever_its_template_does(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any], options: Any
) -> None:
    engine = standin("--renders", *options)
    cut = ["sampling.max_tokens=8", "sampling.samples=1", "filter.rules=[]"]
    done = retort("run", recipe(engine.url), "--until", "verify", *cut, "sampling.continue_tokens=50")
    assert done.returncode == 0, done.stderr
    counts = engine.counts()
    assert (counts["plain"], counts["continued"]) == (60, 0)
    rows = traces(tmp_path)
    assert len(rows) == 60
    for row in rows:
        assert row["text"].removeprefix("<think>\n").startswith("I add the numbers") and row["text"].endswith("}.")
        assert (row["finish_reason"], row["attempts"], row["max_tokens"]) == ("stop", 2, 58)
    manifest = json.loads((tmp_path / "runs/small/verdicts/manifest.json").read_text())
    assert manifest["facts"]["correct"] == 60


@pytest.mark.parametrize(
    ("text", "reasoning", "opening", "said"),
    [
        ("<think>\nOne ", None, "<think>", "\nOne "),
        ("One ", None, "", "One "),
        ("", "One ", "<think>\n", "One "),
        ("", "\nOne ", "<think>", "\nOne "),
    ],
)
def test_the_rest_says_what_opened_the_thought_and_what_was_said(
    tmp_path: Path, text: str, reasoning: str | None, opening: str, said: str
) -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    with Continuing(tmp_path, 50) as continuing:
        more = continuing.follow(request, Completion(text, reasoning, "length", 5, 8, "", 1, 0.0, 1.0))
        assert more is not None and more.rest is not None
        assert (more.rest.opening, more.rest.said) == (opening, said)
        assert (more.rest.messages, more.rest.params) == (request.messages, {"max_tokens": 50})
        ends = Completion("two.</think>\n\n2", None, "stop", 13, 4, "", 1, 9.0, 2.0, plain=True)
        whole = continuing.whole(more, ends)
    if reasoning:
        assert (whole.text, whole.reasoning) == ("2", reasoning + "two.")
    else:
        assert (whole.text, whole.reasoning) == (text + ends.text, None)


def test_one_that_the_second_budget_cuts_off_is_kept_as_truncated(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Callable[..., Any]
) -> None:
    engine = standin()
    cut = ["sampling.max_tokens=4", "sampling.samples=1", "sampling.continue_tokens=4"]
    assert retort("run", recipe(engine.url), "--until", "traces", *cut).returncode == 0
    assert {row["finish_reason"] for row in traces(tmp_path)} == {"length"}
    assert {row["completion_tokens"] for row in traces(tmp_path)} == {8}
    asked = engine.counts()["requests"]
    assert asked == 120
    # Never asked again at the same cap.
    assert retort("run", tmp_path / "small.toml", "--until", "traces", *cut).returncode == 0
    assert engine.counts()["requests"] == asked


def test_what_came_before_a_kill_is_continued_and_not_paid_twice(tmp_path: Path) -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    first = Completion("<think>\nOne ", None, "length", 5, 8, "http://x", 1, 0.0, 1.0)
    with Continuing(tmp_path, 50) as continuing:
        more = continuing.follow(request, first)
        assert more is not None
        assert more.messages[-1] == {"role": "assistant", "content": "<think>\nOne "}
        # Killed here: the journal has it.
    with Continuing(tmp_path, 50) as continuing:
        again = continuing.begun(request)
        assert again == more
        second = Completion("two.</think> 2", None, "stop", 13, 4, "http://x", 1, 9.0, 2.0)
        assert continuing.follow(again, second) is None
        whole = continuing.whole(again, second)
    assert whole.text == "<think>\nOne two.</think> 2"
    assert (whole.completion_tokens, whole.prompt_tokens, whole.seconds, whole.max_tokens) == (12, 5, 3.0, 58)
    assert whole.read_again == 13
    assert len(list(read_rows(tmp_path / UNFINISHED))) == 1


@pytest.mark.parametrize(("foreign", "told"), [(0, False), (1, False), (4, True)])
def test_a_template_that_puts_something_before_what_is_continued_ends_the_run(
    tmp_path: Path, foreign: int, told: bool
) -> None:
    with Continuing(tmp_path, 50) as continuing:
        for number in range(5):
            assert continuing.trouble() is None
            request = Request(str(number), [{"role": "user", "content": "?"}], {"max_tokens": 8})
            more = continuing.follow(request, Completion("<think>\nOne ", None, "length", 5, 8, "", 1, 0.0, 1.0))
            assert more is not None
            continuing.whole(more, Completion("two.", None, "stop", 13 + foreign, 4, "", 1, 9.0, 2.0))
        assert bool(continuing.trouble()) is told


def test_what_a_continuation_read_again_is_paid_for() -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    whole = Completion("<think>\n1</think> 2", None, "stop", 5, 12, "", 2, 0.0, 3.0, read_again=13)
    trace = trace_of(request, whole, "p", 0, SamplingSettings(), "m", "", Price(1.0, 10.0, 0, None))
    assert trace.prompt_tokens == 5
    assert trace.cost == pytest.approx((18 + 120) / 1e6)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [("<think>\nIt is 2.</think>\n\nThe ans", None), ("The ans", "It is 2.")],
)
def test_one_that_was_cut_in_its_answer_stays_cut(tmp_path: Path, text: str, reasoning: str | None) -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    with Continuing(tmp_path, 50) as continuing:
        assert continuing.follow(request, Completion(text, reasoning, "length", 5, 8, "", 1, 0.0, 1.0)) is None


def test_the_tag_that_the_template_opens_is_put_back(tmp_path: Path) -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    whole = Request("b", [{"role": "user", "content": "!"}], {"max_tokens": 8})
    with Continuing(tmp_path, 50) as continuing:
        continuing.follow(whole, Completion("So 2.</think> 2", None, "stop", 5, 5, "", 1, 0.0, 1.0))
        more = continuing.follow(request, Completion("One and ", None, "length", 5, 8, "", 1, 0.0, 1.0))
        assert more is not None
        assert more.messages[-1]["content"] == "<think>\nOne and "
        thought = Completion("", "One and ", "length", 5, 8, "", 1, 0.0, 1.0)
        more = continuing.follow(Request("c", request.messages, request.params), thought)
        assert more is not None
        assert more.messages[-1]["content"] == "<think>\nOne and "


def test_a_continuation_that_the_engine_refuses_is_kept_as_far_as_it_had_come(tmp_path: Path) -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    with Continuing(tmp_path, 50) as continuing:
        assert continuing.refused(request) is None
        more = continuing.follow(request, Completion("<think>\nOne ", None, "length", 5, 8, "http://x", 1, 0.0, 1.0))
        assert more is not None
        ended = continuing.refused(more)
        assert ended is not None
        whole = continuing.whole(more, ended)
    assert (whole.text, whole.finish_reason, whole.completion_tokens) == ("<think>\nOne ", "length", 8)


def test_how_the_template_opens_is_known_again_after_a_kill(tmp_path: Path) -> None:
    request = Request("a", [{"role": "user", "content": "?"}], {"max_tokens": 8})
    with Continuing(tmp_path, 50) as continuing:
        first = Completion("", "One ", "length", 5, 8, "http://x", 1, 0.0, 1.0)
        more = continuing.follow(request, first)
    with Continuing(tmp_path, 50) as continuing:
        again = continuing.begun(request)
    assert more is not None and again.messages == more.messages
    assert again.messages[-1]["content"] == "<think>\nOne "


SPOILING = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""As Qwen3's: an empty thought before what an assistant said."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_vllm_goes_on_word_for_word_under_a_template_that_would_spoil_it(tmp_path: Path) -> None:
    (tmp_path / "spoiling.jinja").write_text(SPOILING)
    problems = [as_problem("ordering", exercise) for exercise in islice(exercises("ordering", 1, held_out=False), 60)]
    greedy = {"samples": 1, "temperature": 0.0, "top_p": 1.0, "concurrency": 64, "canary": 0}
    flags: dict[str, str | int | float | bool] = {"chat-template": str(tmp_path / "spoiling.jinja")}
    engine_settings = EngineSettings(max_model_len=512, max_num_seqs=64, kv_cache_gib=1, replicas=1, flags=flags)
    texts: dict[str, dict[str, str]] = {}
    with serve.serving("teacher/nano/model", engine_settings, tmp_path, "teacher") as engine:
        for name, most, more in (("whole", 300, 0), ("cut", 20, 280)):
            settings = SamplingSettings.model_validate({**greedy, "max_tokens": most, "continue_tokens": more})
            pool = tmp_path / name
            with Continuing(pool, more) as continuing:
                tally = sample(
                    [Ask(problems, pool, settings)], model="teacher/nano/model", revision="", seed=0, what=name,
                    endpoints=engine.endpoints, engine=engine, continuing=continuing,
                )  # fmt: skip
            texts[name] = {row["problem_id"]: row["text"] for row in read_rows(pool)}
            assert tally.continued == (0 if name == "whole" else 60)
    same = sum(texts["cut"][problem] == text for problem, text in texts["whole"].items())
    # Greedy, and yet not all: sums of floats come in another order in another batch.
    assert same >= 57, [(texts["cut"][problem], text) for problem, text in texts["whole"].items()][:5]
