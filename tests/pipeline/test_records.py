"""Identity is content: what an id covers, and what it must not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.records import Example, Message, Problem, Trace, Verdict, problem_id, trace_id

SETTINGS = {"teacher": "t", "revision": "r", "template": "x", "temperature": 0.6, "top_p": 0.95, "top_k": -1}


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_a_problem_is_its_normalised_messages() -> None:
    assert problem_id(user("caf\u00e9 \r\nis 2 ")) == problem_id(user("cafe\u0301\nis 2"))
    assert problem_id(user("2 + 2")) != problem_id(user("2 + 3"))
    assert problem_id(user("a")) != problem_id([{"role": "system", "content": "a"}])


def test_a_problems_source_is_not_part_of_it() -> None:
    rest = {"domain": "math", "license": "MIT", "reference": "1", "verifier": "math"}
    assert Problem.of(user("q"), source="a", **rest).id == Problem.of(user("q"), source="b", **rest).id


@pytest.mark.parametrize(
    "change",
    [{"temperature": 1.0}, {"top_p": 1.0}, {"top_k": 20}, {"teacher": "u"}, {"revision": "s"}, {"template": "y"}],
)
def test_a_sampling_setting_makes_another_trace(change: dict[str, object]) -> None:
    assert trace_id("p", 0, **SETTINGS) != trace_id("p", 0, **{**SETTINGS, **change})  # type: ignore[arg-type]


def test_ids_are_stable_across_versions() -> None:
    # A pool that was paid for is found again by these: changing them orphans every run there is.
    assert problem_id(user("What is 1 plus 1?")) == "b540ef4565eb4599bbeb1e6d5bd63737"
    assert trace_id("p", 0, **SETTINGS) == "883f1eb517c26ef077f4c2937726f1c5"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Problem, Trace, Verdict, Example])
def test_each_records_fields_are_its_schema(kind: type) -> None:
    from dataclasses import fields

    assert [field.name for field in fields(kind)] == kind.SCHEMA.names  # type: ignore[attr-defined]


def test_a_problem_goes_through_arrow_unchanged() -> None:
    problem = Problem.of(user("q"), domain="math", source="s", license="MIT", reference=None, verifier="math")
    table = pa.Table.from_pylist([problem.to_dict()], schema=Problem.SCHEMA)
    assert Problem.from_dict(table.to_pylist()[0]) == problem
