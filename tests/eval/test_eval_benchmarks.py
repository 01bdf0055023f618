"""Where questions come from, how references are read, and what is said of bad files, word for word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from eval.benchmarks import BENCHMARKS, benchmark, draw
from eval.benchmarks.gsm8k import problems, reference
from eval.settings import EvalSettings
from filtering.verifiers import VERIFIERS
from pipeline.errors import UserError

ROWS = [
    {"question": f"What is {n} + 1?", "answer": f"{n} + 1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"} for n in range(20)
]
WAYS = "give the path of a JSONL file as 'path' of eval.benchmarks 'gsm8k'; or leave 'path' out to read the Hub"
ROW = 'each row is {"question": ..., "answer": "... #### 18"}; correct or remove that one'


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_every_benchmark_holds_what_a_benchmark_must():
    for name in BENCHMARKS:
        module = benchmark(name)
        assert name == module.NAME
        assert module.VERIFIER in VERIFIERS
        assert module.DOMAIN
        assert module.LICENSE
        assert callable(module.problems)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("... #### 18", "18"),
        ("#### 1,234,567", "1234567"),
        ("a #### b\n#### -3.5 ", "-3.5"),
        ("no mark 18", None),
        ("#### ", None),
        ("#### eighteen", None),
        ("", None),
    ],
)
def test_the_reference_follows_the_last_mark(answer: str, expected: str | None):
    assert reference(answer) == expected


def test_rows_become_problems(tmp_path: Path):
    found = problems(jsonl(tmp_path, *ROWS[:2], "", {"question": " Is it 7? ", "answer": "#### 7"}))
    assert [problem.reference for problem in found] == ["1", "2", "7"]
    last = found[-1]
    assert last.messages == [{"role": "user", "content": "Is it 7?"}]
    assert (last.domain, last.source, last.license, last.verifier) == ("math", "openai/gsm8k", "MIT", "math")


def test_a_missing_file(tmp_path: Path):
    path = tmp_path / "nowhere.jsonl"
    with pytest.raises(UserError) as error:
        problems(path)
    assert error.value.line() == f"no questions of 'gsm8k' at {path}: {WAYS}"


def test_a_folder_instead_of_a_file(tmp_path: Path):
    with pytest.raises(UserError) as error:
        problems(tmp_path)
    assert error.value.line() == f"cannot read the questions of 'gsm8k' at {tmp_path} (Is a directory): {WAYS}"


def test_an_empty_file(tmp_path: Path):
    path = jsonl(tmp_path, "", "  ")
    with pytest.raises(UserError) as error:
        problems(path)
    assert error.value.line() == f"{path} holds no questions of 'gsm8k': {WAYS}"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("[1]", "not a JSON object: correct or remove that line"),
        ({"answer": "#### 1"}, f"'question' is missing or empty: {ROW}"),
        ({"question": "  ", "answer": "#### 1"}, f"'question' is missing or empty: {ROW}"),
        ({"question": "q"}, f"'answer' is missing: {ROW}"),
        ({"question": "q", "answer": 3}, f"'answer' is missing: {ROW}"),
        ({"question": "q", "answer": "three"}, f"no number after '####' in 'answer': {ROW}"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, line: str):
    path = jsonl(tmp_path, ROWS[0], "", row)
    with pytest.raises(UserError) as error:
        problems(path)
    assert error.value.line() == f"{path}:3: {line}"


def test_a_line_that_is_not_json_or_not_text(tmp_path: Path):
    path = jsonl(tmp_path, ROWS[0], '{"question": ')
    with pytest.raises(UserError, match=r"questions.jsonl:2: not JSON \(Expecting value: .*\): correct or remove"):
        problems(path)
    path.write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(UserError, match=r"questions.jsonl:1: not JSON \('utf-8' codec can't decode"):
        problems(path)


def test_no_hub_is_one_line(monkeypatch: pytest.MonkeyPatch):
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError) as error:
        problems(None)
    assert error.value.line() == (
        "cannot read the Hub dataset openai/gsm8k, config 'main', split 'test' "
        "(ConnectionError: Couldn't reach 'openai/gsm8k' on the Hub): check the names and the connection; "
        "or give the path of a local JSONL file as 'path' of eval.benchmarks 'gsm8k'"
    )


def test_the_hub_is_asked_for_the_test_split(monkeypatch: pytest.MonkeyPatch):
    import datasets

    asked = []

    def load(*where: str, **rest: str) -> list[dict[str, str]]:
        asked.append((where, rest))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(problems(None)) == 20
    assert asked == [(("openai/gsm8k", "main"), {"split": "test", "streaming": True})]


def test_a_draw_does_not_depend_on_order_and_grows(tmp_path: Path):
    found = problems(jsonl(tmp_path, *ROWS, ROWS[0]))
    assert len(draw(found, None, 0)) == 20
    five, ten = draw(found, 5, 0), draw(list(reversed(found)), 10, 0)
    assert [p.id for p in five] == [p.id for p in ten[:5]]
    assert {p.id for p in five} != {p.id for p in draw(found, 5, 1)}


def errors_of(given: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as error:
        EvalSettings.model_validate(given)
    return str(error.value)


def test_defaults_are_the_published_protocol():
    sampling = EvalSettings().sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.6, 0.95, 32_768)
    assert (sampling.prefill, sampling.system) == ("<think>\n", "")
    some = EvalSettings.model_validate({"sampling": {"max_tokens": 512}})
    assert (some.sampling.temperature, some.sampling.prefill) == (0.6, "<think>\n")
    assert some.engine.max_model_len == 512 + 2_048


def test_settings_survive_being_written_and_read():
    settings = EvalSettings.model_validate({"sampling": {"max_tokens": 512}, "engine": {"dtype": "float32"}})
    assert EvalSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_an_unknown_benchmark_names_the_nearest():
    assert "no such benchmark; did you mean 'gsm8k'?" in errors_of({"benchmarks": [{"name": "gsm8"}]})
    assert "no such benchmark; valid here: countdown" in errors_of({"benchmarks": [{"name": "xyz"}]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"benchmarks": [{"name": "gsm8k"}, {"name": "gsm8k", "k": 4}]}, "named twice: gsm8k"),
        ({"models": ["base", "base"]}, "a model is named twice"),
        ({"sampling": {"samples": 4}}, "'samples' is not set here: set k on each of eval.benchmarks"),
        (
            {"sampling": {"max_tokens": 4096}, "engine": {"max_model_len": 2048}},
            "max_model_len 2048 leaves no room for a prompt beside sampling.max_tokens 4096; "
            "raise the one or lower the other",
        ),
    ],
)
def test_contradictions_are_refused(given: dict[str, object], message: str):
    assert message in errors_of(given)


def test_budgets_are_told_apart_from_what_changes_a_score():
    def hashed(given: dict[str, object]) -> dict[str, object]:
        return EvalSettings.model_validate(given).result_settings()

    plain = hashed({})
    assert hashed({"sampling": {"concurrency": 3}}) == plain
    assert hashed({"engine": {"dtype": "float32"}}) == plain
    assert hashed({"sampling": {"temperature": 1.0}}) != plain
    assert hashed({"sampling": {"max_tokens": 64}}) != plain
    assert hashed({"benchmarks": [{"name": "gsm8k", "k": 4}]}) != plain
