"""The report: whole on its own, hostile text escaped, what is absent said to be."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from eval import summary
from eval.charts import length_histogram, loss_curve
from eval.report import gather, render, result_table, run
from eval.settings import EvalSettings
from filtering.filter import ACCEPTED, REJECTED
from pipeline.manifest import Manifest
from pipeline.parts import write_parts
from pipeline.recipe import Recipe
from pipeline.records import Problem, Verdict
from pipeline.stages import STAGES, Job

HOSTILE = "<script>alert(1)</script></pre><img src=http://evil.example/x onerror=alert(2)>"
RECIPE = Recipe(Path("r.toml"), "a-run", f"tries {HOSTILE}", 3, {"eval": EvalSettings()})
SCORE = {
    "model": "student", "role": "student", "task": "gsm8k", "domain": "math", "reasoning": True, "k": 4,
    "questions": 100, "pass_at_1": 0.613, "se": 0.013, "cons_at_k": 0.7, "pass_at_k": 0.8, "no_answer": 0.02,
    "truncated": 0.01, "undecided": 0.0, "undecided_samples": 0, "mean_tokens": 212.4,
}  # fmt: skip
PAIR = {
    "task": "gsm8k", "model": "student", "against": "base",
    "questions": 100, "difference": 0.025, "se": 0.014, "words": "within noise",
}  # fmt: skip


def manifest(run_folder: Path, stage: str, entered: int, kept: int, dropped: dict[str, int]) -> None:
    row = Manifest(stage, True, entered, kept, dropped, 12.34, 512.0, {"python": "3.11"}, {}, "", {}, "h", {})
    row.write(run_folder / STAGES[stage].folder)


def trace(number: int, problem: str, **rest: Any) -> dict[str, Any]:
    row = dict.fromkeys(REJECTED.names)
    return {
        **row, "id": f"{number:032x}", "problem_id": problem, "sample": number, "thought": f"hm {HOSTILE}",
        "answer": HOSTILE, "text": HOSTILE, "finish_reason": "stop",
        "completion_tokens": 10 * number, "state": "correct",
        **rest,
    }  # fmt: skip


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A run in which every stage has left something."""
    problem = Problem.of(
        [{"role": "user", "content": f"Why {HOSTILE}?"}],
        domain="math", source="s", license="MIT", reference="1", verifier="math",
    )  # fmt: skip
    write_parts(tmp_path / "problems", [problem.to_dict()], Problem.SCHEMA)
    verdict = Verdict("t", problem.id, "correct", "numeric", "", "1").to_dict()  # type: ignore[arg-type]
    write_parts(tmp_path / "verdicts", [verdict, {**verdict, "state": "wrong"}, verdict], Verdict.SCHEMA)
    write_parts(tmp_path / "accepted", [trace(n, problem.id) for n in range(1, 40)], ACCEPTED)
    bad = [trace(n, problem.id, reason="wrong" if n > 45 else "<b>loop</b>", answer=None) for n in range(40, 60)]
    write_parts(tmp_path / "rejected", bad, REJECTED)
    for stage, entered, kept, dropped in (
        ("problems", 70, 60, {"duplicate": 10}),
        ("traces", 60, 60, {}),
        ("verify", 60, 58, {"undecided": 2}),
        ("filter", 59, 39, {"wrong": 14, "loop": 6}),
        ("dataset", 39, 39, {}),
        ("train", 39, 39, {}),
        ("eval", 800, 800, {}),
    ):
        manifest(tmp_path, stage, entered, kept, dropped)
    log = [{"step": step, "loss": 2.0 / step} for step in range(1, 9)]
    (tmp_path / "student" / "training.json").write_text(json.dumps({"loss": log}))
    (tmp_path / "eval" / "scores.json").write_text(json.dumps([{**SCORE, "role": "base"}, SCORE]))
    (tmp_path / "eval" / "comparison.json").write_text(json.dumps([PAIR]))
    return tmp_path


class Page(HTMLParser):
    """Collects tags, what they would load, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not (value or "").startswith("#"):
                self.loads.append(f"{tag} {name}={value}")
            if name.startswith("on"):
                self.loads.append(f"{tag} {name}")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(run_folder: Path) -> tuple[str, Page]:
    text = render(gather(RECIPE, run_folder))
    return text, Page(text)


def test_hostile_text_is_escaped_and_nothing_is_loaded(whole: Path):
    text, page = page_of(whole)
    assert HOSTILE in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not {"script", "img", "link", "iframe", "b"} & set(page.tags)
    assert page.loads == []
    # Apart from the hostile text, which is text, no address stands in the page.
    assert set(re.findall(r"https?://[^\s&<\"]+", text)) == {"http://evil.example/x"}
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "@import" not in text


def test_the_page_fits_phones_and_the_dark_and_its_ids_are_unique(whole: Path):
    text, page = page_of(whole)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text
    assert page.tags.count("svg") == 2
    assert "details" in page.tags
    assert len(page.ids) == len(set(page.ids))


def test_the_page_says_what_the_run_did(whole: Path):
    _, page = page_of(whole)
    for said in (
        "61.3 ± 1.3",
        "student - base: +2.5 ± 1.4 points (within noise), paired over 100 questions.",
        "14 wrong, 6 loop",
        "<b>loop</b>",
        "numeric",
    ):
        assert said in page.text, said
    assert "not run" not in page.text


def test_the_same_run_gives_the_same_bytes(whole: Path):
    assert page_of(whole)[0] == page_of(whole)[0]


def test_the_stage_writes_one_file(whole: Path):
    out = whole / "report.building"
    outcome = run(Job(RECIPE, whole, out, STAGES["report"]))
    assert [path.name for path in out.iterdir()] == ["report.html"]
    assert (outcome.counts.entered, outcome.counts.kept, outcome.counts.dropped) == (15, 15, {})


def test_an_empty_run_is_said_not_to_have_run(tmp_path: Path):
    _, page = page_of(tmp_path)
    assert page.text.count("not run") == 14  # seven stages, scores, verdicts, rejections, tokens, cost, loss, versions
    assert "svg" not in page.tags
    counts = run(Job(RECIPE, tmp_path, tmp_path / "out", STAGES["report"])).counts
    assert (counts.kept, counts.dropped) == (0, {"not_run": 15})


def test_training_without_a_log_is_said_not_to_have_run(whole: Path):
    (whole / "student" / "training.json").unlink()
    text, page = page_of(whole)
    assert page.tags.count("svg") == 1
    assert '<h2>Training loss</h2>\n<p class="absent">not run</p>' in text


def test_undefined_scores_are_not_made_up(whole: Path):
    row = {**SCORE, "pass_at_1": None, "se": None, "cons_at_k": None, "mean_tokens": None}
    (whole / "eval" / "scores.json").write_text(json.dumps([row]))
    (whole / "eval" / "comparison.json").write_text("[]")
    text, page = page_of(whole)
    assert "n/a" in page.text
    assert "student against base: not run" in text


def test_shown_traces_are_few_of_every_reason_and_clipped(whole: Path):
    shown = summary.some_traces(whole / "rejected")
    assert len(shown) == summary.SHOWN
    assert {row["reason"] for row in shown} == {"wrong", "<b>loop</b>"}
    assert summary.clipped("x" * 20_005).endswith("\n[5 more characters in the run's parts]")


def test_charts_are_plain_and_stable():
    for draw in (lambda: loss_curve([(1, 2.0), (2, 1.0)]), lambda: length_histogram([1, 2, 3], [9])):
        text = draw()
        assert text.startswith('<svg viewBox="')
        assert text.rstrip().endswith("</svg>")
        assert "http" not in text
        assert "currentColor" in text
        assert "metadata" not in text
        assert text == draw()


def test_the_result_table_word_for_word(whole: Path):
    assert (
        result_table(whole)
        == """\
stage      in  kept           dropped  seconds  peak MB
--------  ---  ----  ----------------  -------  -------
problems   70    60      10 duplicate     12.3      512
traces     60    60                 0     12.3      512
verify     60    58       2 undecided     12.3      512
filter     59    39  14 wrong, 6 loop     12.3      512
dataset    39    39                 0     12.3      512
train      39    39                 0     12.3      512
eval      800   800                 0     12.3      512
total                                     86.4      512

role     task   k  questions  pass@1 % ± se  cons@k %  no answer %  truncated %  undecided  mean tokens
-------  -----  -  ---------  -------------  --------  -----------  -----------  ---------  -----------
base     gsm8k  4        100     61.3 ± 1.3      70.0          2.0          1.0          0          212
student  gsm8k  4        100     61.3 ± 1.3      70.0          2.0          1.0          0          212
student - base: +2.5 ± 1.4 points (within noise)"""
    )


def test_the_result_table_of_an_empty_run(tmp_path: Path):
    lines = result_table(tmp_path).splitlines()
    assert lines[2].split() == ["problems", "not", "run"]
    assert lines[-1] == "scores: not run"
