"""Sources of problems: every kind of file, several at once, and what is said of rows that cannot be read."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from filtering.references import reference_trouble
from pipeline.errors import UserError
from pipeline.parts import read_rows
from pipeline.records import Problem
from teacher.problems import read_problems
from teacher.source_settings import ProblemsSettings
from teacher.sources import column, file_rows

ROWS = [{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(4)]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the kind that the name asks for."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind == ".json":
        text = json.dumps(rows)
    elif kind == ".jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        between = "\t" if kind == ".tsv" else ","
        text = "".join(
            between.join(map(str, line)) + "\r\n" for line in [rows[0].keys(), *(row.values() for row in rows)]
        )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    read = read_problems(ProblemsSettings(path=str(write(tmp_path / name, ROWS))))
    assert [problem.messages[-1]["content"] for problem, _ in read.problems] == [row["question"] for row in ROWS]
    assert [problem.reference for problem, _ in read.problems] == ["1", "2", "3", "4"]
    assert (read.entered, read.bad) == (4, [])


def test_a_csv_cell_may_hold_lines_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfquestion,answer\n"Say ""one"",\nthen two",2\n')
    ((where, row),) = file_rows(path)
    assert row == {"question": 'Say "one",\nthen two', "answer": "2"}
    assert where == f"{path}:3"


def test_bad_rows_are_set_aside_with_where_and_why(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"question": "What is 1 plus 1?", "answer": 2}\n{broken\n[]\n{"question": "", "answer": "1"}\n'
        '{"question": "x"}\n{"question": "y \\ud800", "answer": "1"}\n'
    )
    read = read_problems(ProblemsSettings(path=str(path)))
    assert len(read.problems) == 1
    assert [(row["where"], row["reason"]) for row in read.bad] == [
        (f"{path}:2", "broken JSON"),
        (f"{path}:3", "not a JSON object"),
        (f"{path}:4", "no text or messages in column 'question'"),
        (f"{path}:5", "no reference in column 'answer'"),
        (f"{path}:6", "broken Unicode (a lone surrogate)"),
    ]


def test_rows_of_a_csv_that_do_not_fit_its_head_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nWhat is 1?,1\nWhat is 2?\nWhat, is 3?,3\n")
    read = read_problems(ProblemsSettings(path=str(path)))
    assert len(read.problems) == 1
    assert [row["reason"] for row in read.bad] == ["not as many columns as the head's 2"] * 2


def test_columns_inside_tables_and_rows_chosen_by_a_column(tmp_path: Path) -> None:
    rows = [
        {"id": {"text": f"What is {n} plus 1?"}, "gold": json.dumps({"value": n + 1}), "level": n, "kind": "math"}
        for n in range(4)
    ]
    settings = ProblemsSettings(
        path=str(write(tmp_path / "a.jsonl", rows)), question="id.text", reference="gold.value", only={"level": [1, 3]}
    )
    assert [problem.reference for problem, _ in read_problems(settings).problems] == ["2", "4"]
    assert column({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert column({"a": "no JSON"}, "a.b") is None
    assert column({"turns": [{"content": "Hi"}]}, "turns.0.content") == "Hi"
    assert column({"turns": []}, "turns.0.content") is None


def test_domain_and_licence_may_stand_in_columns(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "kind": "stem", "by": "MIT"}, {**ROWS[1], "kind": "poetry", "by": "MIT"}]
    settings = ProblemsSettings(
        path=str(write(tmp_path / "a.jsonl", rows)), domain_column="kind", license_column="by", source="mine"
    )
    read = read_problems(settings)
    ((problem, _),) = read.problems
    assert (problem.domain, problem.license, problem.source) == ("stem", "MIT", "mine")
    assert read.bad[0]["reason"].startswith("no domain in column 'kind': 'poetry' is none of math, code")


def test_turns_of_a_conversation_are_kept(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 plus 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And 1 more?"},
    ]
    ((problem, _),) = read_problems(
        ProblemsSettings(path=str(write(tmp_path / "a.jsonl", [{"question": turns, "answer": "3"}])))
    ).problems
    assert problem.messages == turns


def test_several_sources_each_with_its_own_columns_and_limit(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ROWS)
    two = write(tmp_path / "two.csv", [{"q": "Is the sea blue?", "a": "yes"}, {"q": "Is it deep?", "a": "yes"}])
    settings = ProblemsSettings.model_validate(
        {
            "sources": [
                {"path": str(one), "limit": 3},
                {"path": str(two), "question": "q", "reference": "a", "domain": "general", "verifier": "exact"},
            ]
        }
    )
    read = read_problems(settings)
    assert [problem.domain for problem, _ in read.problems] == ["math"] * 3 + ["general"] * 2
    assert read.sources == {str(one): {"rows": 3, "taken": 3}, str(two): {"rows": 2, "taken": 2}}
    assert (read.entered, read.over_limit) == (5, 0)


def numbered(tmp_path: Path, count: int) -> Path:
    rows = [{"question": f"What is {n}?", "answer": "1" * (1 + n * 7 % 10)} for n in range(count)]
    return write(tmp_path / "numbered.jsonl", rows)


def taken(path: Path, **settings: object) -> list[str]:
    read = read_problems(ProblemsSettings(path=str(path), **settings), seed=3)  # type: ignore[arg-type]
    assert read.entered == len(read.problems) + read.over_limit + read.duplicates
    return [problem.messages[0]["content"] for problem, _ in read.problems]


def test_nothing_is_read_beyond_the_limit_where_the_order_is_the_sources_own(tmp_path: Path) -> None:
    path = numbered(tmp_path, 50)
    path.write_text(path.read_text() + "no JSON at all")
    read = read_problems(ProblemsSettings(path=str(path), limit=20))
    assert (read.entered, len(read.problems), read.bad) == (20, 20, [])


def test_a_limit_takes_the_first_of_the_order_whatever_comes_before(tmp_path: Path) -> None:
    path = numbered(tmp_path, 100)
    for order in ("given", "shuffled", "shortest"):
        whole = taken(path, order=order)
        assert len(whole) == 100
        assert taken(path, order=order, limit=30) == whole[:30]
    assert taken(path, order="given") == [f"What is {n}?" for n in range(100)]
    assert {name[8:-1][-1] for name in taken(path, order="shortest", limit=20)} == {"0", "3"}
    shuffled = taken(path, order="shuffled")
    assert sorted(shuffled) == sorted(taken(path)) != shuffled
    # A source that has grown keeps the order of what it had.
    grown = taken(numbered(tmp_path, 120), order="shuffled")
    assert [name for name in grown if name in shuffled] == shuffled


def test_a_problem_that_comes_again_takes_no_place_of_the_limit(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n // 2}?", "answer": "1"} for n in range(20)]
    read = read_problems(ProblemsSettings(path=str(write(tmp_path / "twice.jsonl", rows)), limit=6))
    assert (len(read.problems), read.duplicates, read.entered) == (6, 5, 11)


def test_settings_of_one_source_beside_several_are_refused() -> None:
    with pytest.raises(ValidationError, match="path beside sources: write it into one of"):
        ProblemsSettings.model_validate({"path": "x.jsonl", "sources": [{"path": "y.jsonl"}]})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "is of no kind that can be read: give a file whose name ends in .jsonl"),
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"3", "holds no list of objects"),
        ("a.parquet", b"PAR1", "cannot read problems.path = .*give a whole Parquet file"),
        ("a.jsonl.gz", b"no gzip", "cannot read problems.path"),
        ("a.jsonl", b"", "has no rows: give one that has"),
        ("a.csv", b"question,answer\n", "has no rows: give one that has"),
    ],
)
def test_a_source_that_cannot_be_read_or_yields_nothing_is_an_error(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as told:
        read_problems(ProblemsSettings(path=str(tmp_path / name)))
    assert "\n" not in told.value.line()


def test_one_empty_source_among_several_is_an_error(tmp_path: Path) -> None:
    one, empty = write(tmp_path / "one.jsonl", ROWS), tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(UserError, match=r"the source .*empty.jsonl has no rows"):
        read_problems(ProblemsSettings.model_validate({"sources": [{"path": str(one)}, {"path": str(empty)}]}))


@pytest.mark.parametrize(
    ("verifier", "reference", "words"),
    [
        ("math", "12", None),
        ("math", "\\frac{1}{2}", None),
        ("math", "see the book", "the reference is words: only an equal text is right"),
        ("math", "1 + " * 200 + "1", "the reference is longer than 400 characters: only an equal text is right"),
        ("exact", "Ann", None),
        ("exact", None, "no reference"),
        ("countdown", '{"numbers": [1, 2], "target": 3}', None),
        ("countdown", "3", "the reference names no numbers and target"),
        ("knights", "Ann is a knight.", None),
        ("knights", "Ann", "the reference names no knight and no knave"),
        ("tests", '{"function": "f", "tests": [{"args": [1], "result": 1}]}', None),
        ("none such", "1", "no verifier 'none such'"),
    ],
)
def test_references_that_no_verifier_can_use_are_found(verifier: str, reference: str | None, words: str | None) -> None:
    problem = Problem.of(
        [{"role": "user", "content": "?"}],
        domain="math",
        source="s",
        license="l",
        reference=reference,
        verifier=verifier,
    )
    assert reference_trouble(problem) == words


def test_answers_that_are_there_become_finished_traces_and_are_not_asked_for(
    tmp_path: Path, retort: Run, standin: Callable[..., Any]
) -> None:
    engine = standin()
    turns = [
        {"role": "user", "content": "What is 7 plus 1?"},
        {"role": "assistant", "content": "<think>So 8.</think> 8"},
    ]
    write(tmp_path / "chats.jsonl", [{"messages": turns, "gold": "8"}, {"messages": turns[:1], "gold": "8"}])
    write(tmp_path / "rows.jsonl", ROWS)
    write(tmp_path / "done.jsonl", [{"question": "What is 9 plus 1?", "answer": "10", "said": "It is 10."}])
    (tmp_path / "r.toml").write_text(
        f"""
name = "r"
[[problems.sources]]
path = "chats.jsonl"
question = "messages"
response = "messages"
reference = "gold"
[[problems.sources]]
path = "done.jsonl"
response = "said"
source = "done"
[[problems.sources]]
path = "rows.jsonl"
[teacher]
model = "stand-in"
endpoints = ["{engine.url}"]
[sampling]
samples = 2
"""
    )
    done = retort("run", "r.toml", "--until", "verify")
    assert done.returncode == 0, done.stderr
    assert engine.counts()["answered"] == 2 * len(ROWS)
    traces = list(read_rows(tmp_path / "runs/r/traces"))
    brought = {row["teacher"]: row for row in traces if row["template"] == "imported"}
    assert len(traces) == 2 * len(ROWS) + 2
    assert brought["imported:done"]["answer"] == "It is 10."
    (chat,) = (row for name, row in brought.items() if name != "imported:done")
    assert (chat["thought"], chat["answer"]) == ("So 8.", "8")
    manifest = json.loads((tmp_path / "runs/r/traces/manifest.json").read_text())
    assert (manifest["kept"], manifest["facts"]["imported"]) == (len(traces), 2)
    bad = (tmp_path / "runs/r/problems/bad_rows.jsonl").read_text()
    assert "no assistant's turn at the end of column 'messages'" in bad
    # A second run asks and imports nothing anew.
    assert retort("run", "r.toml", "--until", "traces", "sampling.temperature=0.6").returncode == 0
    assert len(list(read_rows(tmp_path / "runs/r/traces"))) == len(traces)


def test_references_without_use_are_reported_up_front(tmp_path: Path, retort: Run) -> None:
    write(tmp_path / "a.jsonl", [*ROWS, {"question": "Why is it so?", "answer": "because of the wind"}])
    (tmp_path / "r.toml").write_text('name = "r"\n[problems]\npath = "a.jsonl"\n')
    done = retort("problems", "r.toml")
    assert done.returncode == 0, done.stderr
    assert (
        "problems: 1 of 5: the reference is words: only an equal text is right "
        "(first: 'Why is it so?', reference 'because of the wind')" in done.stderr
    )
    manifest = json.loads((tmp_path / "runs/r/problems/manifest.json").read_text())
    assert manifest["facts"]["references"] == {"the reference is words: only an equal text is right": 1}
    assert manifest["facts"]["sources"] == {"a.jsonl": {"rows": 5, "taken": 5}}


def test_broken_unicode_within_messages_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    turns = [[{"role": "user", "content": text}] for text in ("2?", "\ud83d?")]
    path.write_text("".join(json.dumps({"question": turn, "answer": "2"}) + "\n" for turn in turns))
    read = read_problems(ProblemsSettings(path=str(path)))
    assert len(read.problems) == 1
    assert [row["reason"] for row in read.bad] == ["broken Unicode (a lone surrogate)"]
