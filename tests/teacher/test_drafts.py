"""Accepted traces of one run, written anew by another: what is asked, what it is told apart by, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.parts import read_rows
from pipeline.records import Problem
from teacher.sampling import messages_for
from teacher.settings import SamplingSettings

PROMPT = "{question}\nDraft:\n{draft}"
Retort = Callable[..., Any]


def rewriting(folder: Path, url: str, prompt: str = PROMPT) -> Path:
    path = folder / "again.toml"
    path.write_text(
        f'name = "again"\n[problems]\nsource = "run:small"\n[teacher]\nmodel = "stand-in"\nendpoints = ["{url}"]\n'
        f"[sampling]\nsamples = 1\nprompt = {json.dumps(prompt)}\n"
        '[filter]\nrules = [{ rule = "truncated" }, { rule = "thought_missing" }]\n'
    )
    return path


def problem(draft: str | None) -> Problem:
    rest = {"domain": "math", "source": "s", "license": "MIT", "reference": "2", "verifier": "math"}
    return Problem.of([{"role": "user", "content": "1 + 1? {draft}"}], draft=draft, **rest)


def test_the_draft_stands_where_the_prompt_names_it_and_nowhere_else() -> None:
    (asked,) = messages_for(problem("It is {question} 2."), SamplingSettings(prompt=PROMPT, plain_up_to=100))
    # What question and draft hold themselves is not filled in.
    assert asked["content"] == "1 + 1? {draft}\nDraft:\nIt is {question} 2."


def test_another_draft_is_another_problem_and_none_changes_no_id() -> None:
    assert len({problem(None).id, problem("a").id, problem("b").id}) == 3
    assert problem("a").id == problem("a \r\n").id
    plain = {key: value for key, value in problem(None).to_dict().items() if key != "draft"}
    assert Problem.from_dict(plain) == problem(None)


def test_accepted_traces_are_rewritten_verified_and_published_under_their_own_question(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort
) -> None:
    engine = standin("--wrong", "0.3")
    assert retort("run", recipe(engine.url), "--until", "filter").returncode == 0
    accepted = {row["id"]: row for row in read_rows(tmp_path / "runs/small/accepted")}
    assert 60 < len(accepted) < 180
    done = retort("run", rewriting(tmp_path, engine.url), "--until", "dataset")
    assert done.returncode == 0, done.stderr
    rewritten = list(read_rows(tmp_path / "runs/again/problems"))
    assert {row["draft"] for row in rewritten} == {f"{row['thought']}\n\n{row['answer']}" for row in accepted.values()}
    questions = {row["messages"][0]["content"] for row in read_rows(tmp_path / "runs/small/problems")}
    rows = [
        row
        for path in (tmp_path / "runs/again/dataset/data").glob("train-*")
        for row in pq.read_table(path).to_pylist()
    ]
    assert rows
    for row in rows:
        assert row["problem"] in questions
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        assert row["source"] == "sums"


def test_a_changed_first_run_makes_the_second_stale(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort
) -> None:
    engine = standin("--wrong", "0.3")
    path, again = recipe(engine.url), rewriting(tmp_path, engine.url)
    assert retort("run", path, "--until", "filter", "sampling.samples=1").returncode == 0
    assert retort("run", again, "--until", "problems").returncode == 0
    assert retort("run", path, "--until", "filter", "sampling.samples=2").returncode == 0
    stale = retort("problems", again)
    assert stale.returncode == 2
    assert 'was built from other settings or inputs (problems.drafts.run:small: "' in stale.stderr
    assert retort("run", again, "--until", "problems").returncode == 0
    assert retort("problems", again).returncode == 0


def test_a_draft_without_a_place_a_place_without_a_draft_and_no_run_are_one_line(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort
) -> None:
    engine = standin()
    path = recipe(engine.url)
    done = retort("run", rewriting(tmp_path, engine.url), "--until", "traces")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("retort: no accepted traces in runs/small/accepted: run ")
    done = retort("run", path, "--until", "traces", f"sampling.prompt={PROMPT!r}")
    assert done.returncode == 2
    assert "sampling.prompt names {draft}, and 60 of 60 problems have none: set" in done.stderr
    assert retort("run", path, "--until", "filter").returncode == 0
    done = retort("run", rewriting(tmp_path, engine.url, "{question}"), "--until", "traces")
    assert done.returncode == 2
    assert "60 of 60 problems have a draft, and sampling.prompt has no place for it: put {draft}" in done.stderr


def test_a_run_that_accepted_nothing_gives_no_problem_and_says_so(
    tmp_path: Path, standin: Callable[..., Any], recipe: Callable[[str], Path], retort: Retort
) -> None:
    engine = standin("--wrong", "1.0")
    assert retort("run", recipe(engine.url), "--until", "filter").returncode == 0
    done = retort("run", rewriting(tmp_path, engine.url), "--until", "problems")
    assert done.returncode == 2
    assert "the source run:small has no accepted traces: give one that has" in done.stderr
