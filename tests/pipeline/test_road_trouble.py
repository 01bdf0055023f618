"""What goes wrong on the road and is told in a line: lost parts, stale sources, settings that would waste tokens."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.parts import read_rows

Retort = Callable[..., subprocess.CompletedProcess[str]]
NOWHERE = "http://127.0.0.1:9/v1"


def test_a_run_without_train_ends_with_its_dataset(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    done = retort("run", recipe(standin().url))
    assert done.returncode == 0, done.stderr
    assert "no [train] in the recipe: the run ends with its dataset and the report" in done.stderr.splitlines()
    assert "An accepted trace cost" in (tmp_path / "runs/small/report/report.html").read_text()
    assert "scores: not run" in done.stdout
    assert (tmp_path / "runs/small/dataset/manifest.json").exists()
    assert not (tmp_path / "runs/small/student").exists()


def test_a_part_that_is_lost_is_missed(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    engine = standin()
    path = recipe(engine.url)
    run = tmp_path / "runs/small"
    assert retort("run", path, "--until", "verify").returncode == 0
    (part,) = (run / "traces").glob("part-*.parquet")
    part.unlink()
    missed = retort("filter", path)
    assert missed.returncode == 2
    assert "needs the stage 'traces', and the part traces/part-00000.parquet is gone in runs/small" in missed.stderr
    # A run asks for what is lost, and goes on.
    again = retort("run", path, "--until", "filter")
    assert again.returncode == 0, again.stderr
    assert engine.counts()["answered"] == 360
    assert len(list(read_rows(run / "accepted"))) == 180


def test_a_part_that_is_damaged_is_one_line(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    path = recipe(standin().url)
    assert retort("run", path, "--until", "traces").returncode == 0
    (part,) = (tmp_path / "runs/small/traces").glob("part-*.parquet")
    part.write_bytes(b"x" * part.stat().st_size)
    done = retort("verify", path)
    assert done.returncode == 2
    assert "cannot read the part runs/small/traces/part-00000.parquet" in done.stderr
    assert "Traceback" not in done.stderr
    part.write_bytes(b"x")
    assert "the part traces/part-00000.parquet has changed since" in retort("verify", path).stderr


def test_a_stage_whose_sources_are_stale_says_so(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    path = recipe(standin().url)
    assert retort("run", path, "--until", "filter").returncode == 0
    done = retort("filter", path, "problems.limit=5")
    assert done.returncode == 2
    assert (
        "'filter' needs the stage 'problems', which was built from other settings (problems.limit: null -> 5)"
        in done.stderr
    )
    # How many samples are asked is the pool's own matter.
    assert retort("filter", path, "sampling.samples=2").returncode == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "sampling.prompt=hello",
            'sampling.prompt = "hello": it has no {question} (nor {draft}), so that every problem',
        ),
        ("problems.verifier=maths", "problems.verifier = \"maths\": no such verifier; did you mean 'math'?"),
        ("problems.license_column=lic", "no licence in column 'lic'"),
        ("problems.only={kind=['a']}", "no row of the source "),
        (
            "teacher.domains.math={model='m', sampling={budget_tokens=5}}",
            "budget_tokens holds for all teachers together: set it in [sampling]",
        ),
    ],
)
def test_what_would_waste_tokens_is_refused(override: str, words: str, recipe: Any, retort: Retort) -> None:
    done = retort("problems", recipe(NOWHERE), override)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_without_rows_is_told_as_such(sums: Path, recipe: Any, retort: Retort) -> None:
    path = recipe(NOWHERE)
    sums.write_text("")
    assert retort("problems", path).stderr == f"retort: the source {sums} has no rows: give one that has\n"


def test_bad_rows_are_shown(tmp_path: Path, sums: Path, recipe: Any, retort: Retort) -> None:
    with open(sums, "a") as file:
        file.write('{"question": "no reference"}\n')
    assert retort("problems", recipe(NOWHERE)).returncode == 0
    (bad,) = (tmp_path / "runs/small/problems/bad_rows.jsonl").read_text().splitlines()
    assert json.loads(bad)["row"] == '{"question": "no reference"}'


def test_a_file_without_a_source_is_named_by_itself(tmp_path: Path, recipe: Any, retort: Retort) -> None:
    path = recipe(NOWHERE)
    path.write_text(path.read_text().replace('source = "sums"\n', ""))
    assert retort("problems", path).returncode == 0
    assert {row["source"] for row in read_rows(tmp_path / "runs/small/problems")} == {"sums.jsonl"}


def test_traces_are_listed_where_none_is_named(tmp_path: Path, standin: Any, recipe: Any, retort: Retort) -> None:
    path = recipe(standin("--wrong", "0.5").url)
    assert retort("run", path, "--until", "filter").returncode == 0
    lines = retort("show", tmp_path / "runs/small").stdout.splitlines()
    assert len(lines) == 20
    assert all(line.split()[1] in ("correct", "wrong") and "What is " in line for line in lines)
    assert "problem:" in retort("show", tmp_path / "runs/small", lines[0].split()[0]).stdout


def test_engines_that_run_already_are_not_served(recipe: Any, retort: Retort) -> None:
    done = retort("serve", recipe(NOWHERE))
    assert done.returncode == 2
    assert "teacher.endpoints names engines that are served already: set teacher.endpoints=[]" in done.stderr
    done = retort("serve", recipe(NOWHERE), "--domain", "general")
    assert "no teacher of its own for the domain 'general': the recipe has one teacher for all" in done.stderr


def test_a_folder_that_cannot_be_made_is_one_line(recipe: Any, retort: Retort) -> None:
    done = retort("problems", recipe(NOWHERE), "--run", "/proc/nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("retort: cannot ")
    assert "--run DIR" in done.stderr


def test_a_pilot_of_less_than_nothing_is_refused(recipe: Any, retort: Retort) -> None:
    assert "-5 is less than nothing" in retort("plan", recipe(NOWHERE), "--pilot", "-5").stderr
