"""Readability rules: what each drops, with which spans, and what it must leave alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from filtering.dataset import select
from filtering.rules import RULES, Dropped, first_reason
from filtering.settings import DatasetSettings
from pipeline.records import Problem, Trace

SAMPLE = Path(__file__).resolve().parents[3] / "shared/data"
PROSE = "First we look at the numbers that the question gives. Then we add them, and check the sum once more. "


def make(
    thought: str | None = "so", answer: str | None = "4", question: str = "What is two plus two?", **rest: Any
) -> tuple[Problem, Trace]:
    problem = Problem.of(
        [{"role": "user", "content": question}],
        domain="math",
        source="s",
        license="MIT",
        reference="4",
        verifier="math",
    )
    row = dict.fromkeys(Trace.SCHEMA.names)
    text = f"<think>{thought}</think>{answer}"
    row.update(
        {
            "id": "t",
            "problem_id": problem.id,
            "thought": thought,
            "answer": answer,
            "text": text,
            "finish_reason": "stop",
            **rest,
        }
    )
    return problem, Trace.from_dict(row)


def reason(rule: str, *made: Any, **thresholds: float) -> str | None:
    problem, trace = make(*made) if made and not isinstance(made[0], tuple) else made[0]
    found = RULES[rule](problem, trace, **thresholds)
    return found.reason if found else None


def test_a_clean_trace_passes_every_rule() -> None:
    problem, trace = make(PROSE * 3)
    assert first_reason([{"rule": name} for name in RULES], problem, trace) is None


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        ("truncated", make(finish_reason="length")),
        ("thought_missing", make(None)),
        ("thought_missing", make("")),
        ("thought_unclosed", make("so", None)),
        ("answer_missing", make("so", "")),
        ("code_fence", make("I write\n```python\nprint(4)\n```\nand see")),
        ("long_paragraph", make(PROSE * 40)),
        ("repetition", make(PROSE * 20)),
        ("repetition", make("我再检查一遍，" * 100, question="二加二等于几？")),
        ("repetition", make("Let me see.\n" + "Wait, let me check.\n" * 8)),
        ("language_mixing", make(PROSE + "然后我们把这两个数字加起来，得到结果。" + PROSE)),
        (
            "language_mixing",
            make("首先我们看题目。" * 5 + "then we add these numbers together", question="二加二等于几？"),
        ),
        ("language_mixing", make(PROSE + "Потом мы складываем числа.")),
    ],
)
def test_a_defect_is_dropped_for_its_reason(rule: str, made: tuple[Problem, Trace]) -> None:
    if rule == "repetition" and made[1].thought == PROSE * 20:
        made = make(PROSE * 20)
    found = RULES[rule](*made)
    assert isinstance(found, Dropped)
    assert found.reason == rule


def test_spans_show_what_the_rule_saw() -> None:
    problem, trace = make(PROSE + "然后加起来。" + PROSE)
    found = RULES["language_mixing"](problem, trace)
    assert found is not None
    assert "".join(trace.thought[start:end] for _, start, end in found.spans) == "然后加起来"
    problem, trace = make("short\n\n" + "x" * 50 + "\n\nshort")
    found = RULES["long_paragraph"](problem, trace, max_chars=49)
    assert found is not None
    ((field, start, end),) = found.spans
    assert (field, trace.thought[start:end]) == ("thought", "x" * 50)


@pytest.mark.parametrize(
    "made",
    [
        make(PROSE + "Let \\alpha be $\\theta$, and π = 3.14. " + PROSE),
        make("首先，设 x 为未知数，那么 2x + 3 = 7，所以 x = 2。" * 3, question="解方程 2x + 3 = 7"),
        make("Сначала складываем числа. " * 3, question="Сколько будет два плюс два?"),
        make("我们用 sin 和 cos 的公式得到 max 值。" * 2, question="求三角函数的最大值"),
        make(PROSE + "The word 你好 means hello. " + PROSE, question="What does 你好 mean?"),
    ],
)
def test_mathematics_and_what_the_question_quotes_are_not_mixing(made: tuple[Problem, Trace]) -> None:
    assert RULES["language_mixing"](*made) is None


def test_long_thoughts_in_short_paragraphs_pass() -> None:
    problem, trace = make("\n\n".join(f"{n}. {PROSE}" for n in range(200)))
    assert RULES["long_paragraph"](problem, trace) is None


def test_the_first_rule_in_order_gives_the_reason() -> None:
    problem, trace = make("```\nx\n```", "", finish_reason="length")
    assert first_reason([{"rule": "answer_missing"}, {"rule": "code_fence"}], problem, trace).reason == "answer_missing"  # type: ignore[union-attr]
    assert first_reason([{"rule": "code_fence"}, {"rule": "answer_missing"}], problem, trace).reason == "code_fence"  # type: ignore[union-attr]


def test_selection_does_not_depend_on_the_order_of_rows() -> None:
    rows = [{"id": f"{n:02}", "problem_id": str(n % 5), "completion_tokens": 100 - n} for n in range(40)]
    for how in ("shortest", "random"):
        settings = DatasetSettings(max_per_problem=3, select=how)  # type: ignore[arg-type]
        chosen = select(rows, settings, seed=1)
        assert len(chosen) == 15
        assert set(select(rows[::-1], settings, seed=1)) == set(chosen)
    assert set(select(rows, DatasetSettings(), 1)) == {f"{n}" for n in range(35, 40)}


@pytest.mark.skipif(
    not (SAMPLE / "long_traces_sample.jsonl").exists(), reason="no ../shared/data/long_traces_sample.jsonl"
)
def test_real_traces_go_through_every_rule() -> None:
    rows = [json.loads(line) for line in (SAMPLE / "long_traces_sample.jsonl").read_text().splitlines()]
    reasons: dict[str, int] = {}
    for row in rows:
        text = next(
            value for value in (row.get("text"), row.get("response"), row.get("answer"), row.get("content")) if value
        )
        from teacher.thought import split

        thought, answer = split(text, None)
        problem, trace = make(thought, answer, text=text)
        for name, rule in RULES.items():
            if (found := rule(problem, trace)) is not None:
                reasons[name] = reasons.get(name, 0) + 1
                for field, start, end in found.spans:
                    assert 0 <= start < end <= len(getattr(trace, field))
    # The sample's README names these defects among its rows.
    assert reasons["code_fence"] > 0
    assert reasons["thought_unclosed"] > 0
