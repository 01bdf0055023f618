"""The stage `eval` with the engine and its samples faked, and the real grading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import teacher.sampling
import teacher.serve
import teacher.swap
from eval.models import resolve, sharing
from eval.settings import EvalSettings
from eval.stage import run
from filtering.settings import VerifySettings
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.manifest import Manifest
from pipeline.recipe import Recipe
from pipeline.records import Trace
from pipeline.stages import STAGES, Job
from students.settings import TrainSettings
from teacher.sampling import Ask
from teacher.settings import TeacherSettings

ANSWERS = {
    "right": ("a thought", "It is \\boxed{%s}.", "stop"),
    "wrong": ("a thought", "It is \\boxed{-77}.", "stop"),
    "unclosed": ("a thought without an end", None, "length"),
}


class Fakes:
    """Stands for teacher.serve.serving and teacher.sampling.sample; remembers what was asked."""

    def __init__(self) -> None:
        self.served: list[tuple[str, str, Any]] = []
        self.swaps: list[bool] = []
        self.sampled = 0
        self.plan: dict[str, list[str]] = {"base": ["wrong"], "student": ["right"], "teacher": ["right"]}

    @contextmanager
    def serving(self, model: str, settings: Any, run: Path, role: str, swaps: bool = False) -> Iterator[Any]:
        self.served.append((role, model, settings))
        self.swaps.append(swaps)
        yield SimpleNamespace(endpoints=[f"endpoint of {model}"], trouble=lambda: None)

    def sample(
        self,
        asks: list[Ask],
        *,
        model: str,
        revision: str,
        endpoints: list[Any],
        seed: int,
        what: str,
        engine: Any = None,
    ) -> None:
        plan = self.plan[what.split()[0]]
        for ask in asks:
            settings = ask.settings
            by_id = {problem.id: problem for problem in ask.problems}
            order = {problem.id: number for number, problem in enumerate(ask.problems)}
            with Journal(ask.pool, Trace.SCHEMA) as journal:
                held = journal.ids()
                wanted = teacher.sampling.wanted_ids(ask.problems, model, revision, settings)
                for id, (problem, number) in wanted.items():
                    if id in held:
                        continue
                    assert endpoints, "sampling needs an engine"
                    thought, answer, finish = ANSWERS[plan[(order[problem] + number) % len(plan)]]
                    answer = answer.replace("%s", str(by_id[problem].reference)) if answer else None
                    row = Trace(
                        id, problem, number, thought, answer, f"{thought}</think>{answer}", finish, 5, 40,
                        model, revision, "t", settings.temperature, settings.top_p, settings.top_k,
                        settings.max_tokens, 0, "e", 1, 0.0, 1.0,
                    )  # fmt: skip
                    journal.append([row.to_dict()])
                    self.sampled += 1
                journal.roll()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    found = Fakes()
    monkeypatch.setattr(teacher.serve, "serving", found.serving)
    monkeypatch.setattr(teacher.sampling, "sample", found.sample)
    return found


def student(run_folder: Path, mark: str = "0123456789abcdef") -> None:
    Manifest("train", True, 1, 1, {}, 1.0, 1.0, {}, {}, "", {}, mark, {}).write(run_folder / "student")


def job(folder: Path, questions: int = 4, k: int = 1, max_tokens: int = 64, **settings: Any) -> Job:
    path = folder / "questions.jsonl"
    rows = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(questions)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "benchmarks": [{"name": "gsm8k", "path": str(path), "k": k}],
        "sampling": {"max_tokens": max_tokens},
        **settings,
    }
    sections = {
        "eval": EvalSettings.model_validate(given),
        "verify": VerifySettings(workers=1),
        "train": TrainSettings(base="some/base", revision="abc"),
        "teacher": TeacherSettings(model="some/teacher"),
    }
    if not (folder / "student" / "manifest.json").exists():
        student(folder)
    return Job(Recipe(folder / "r.toml", "r", "", 0, sections), folder, folder / "eval", STAGES["eval"])  # type: ignore[arg-type]


def test_right_wrong_and_unclosed_samples_are_graded_and_scored(tmp_path: Path, fakes: Fakes, capsys: Any):
    fakes.plan = {"base": ["wrong", "unclosed"], "student": ["right", "right", "right", "unclosed"]}
    outcome = run(job(tmp_path))
    assert (outcome.counts.entered, outcome.counts.kept, outcome.counts.dropped) == (8, 8, {})
    base, ours = json.loads((tmp_path / "eval" / "scores.json").read_text())
    assert (base["role"], base["model"], base["pass_at_1"], base["no_answer"]) == ("base", "some/base", 0.0, 0.5)
    assert (ours["role"], ours["model"], ours["pass_at_1"], ours["truncated"]) == ("student", "student", 0.75, 0.25)
    assert (ours["task"], ours["domain"], ours["reasoning"], ours["k"], ours["questions"]) == (
        "gsm8k",
        "math",
        True,
        1,
        4,
    )
    (pair,) = json.loads((tmp_path / "eval" / "comparison.json").read_text())
    assert (pair["difference"], pair["se"], pair["questions"], pair["words"]) == (0.75, 0.25, 4, "beyond noise")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split("  ")[0] == "role"
    assert printed[3].split() == ["student", "gsm8k", "1", "4", "75.0", "±", "25.0", "75.0", "25.0", "25.0", "0", "40"]
    assert printed[-1] == "student - base: +75.0 ± 25.0 points (beyond noise)"


def test_each_sample_leaves_a_grade(tmp_path: Path, fakes: Fakes):
    fakes.plan = {"base": ["wrong"], "student": ["right", "unclosed"]}
    run(job(tmp_path, questions=2))
    lines = (tmp_path / "eval" / "student" / "gsm8k" / "grades.jsonl").read_text().splitlines()
    rows = {row["counted"]: row for row in map(json.loads, lines)}
    assert rows["right"]["extracted"] == rows["right"]["reference"]
    assert (rows["wrong"]["state"], rows["wrong"]["no_answer"], rows["wrong"]["decided_by"]) == (
        "undecided", True, "extraction"
    )  # fmt: skip


def test_one_engine_a_model_and_none_where_nothing_is_missing(tmp_path: Path, fakes: Fakes):
    first = run(job(tmp_path))
    assert [role for role, _, _ in fakes.served] == ["eval-base", "eval-student"]
    assert fakes.served[0][1] == "some/base"
    assert fakes.served[0][2].flags == {"revision": "abc"}
    assert fakes.served[1][1] == str(tmp_path / "student")
    assert fakes.served[1][2].flags == {}
    assert run(job(tmp_path)).output_hash == first.output_hash
    assert (len(fakes.served), fakes.sampled) == (2, 8)


def test_more_samples_add_to_the_pool(tmp_path: Path, fakes: Fakes):
    run(job(tmp_path))
    run(job(tmp_path, k=3))
    assert fakes.sampled == 2 * 4 * 3
    assert json.loads((tmp_path / "eval" / "scores.json").read_text())[0]["k"] == 3


def test_a_new_student_is_sampled_anew_and_the_base_is_not(tmp_path: Path, fakes: Fakes):
    run(job(tmp_path))
    student(tmp_path, "another student")
    fakes.plan["student"] = ["wrong"]
    run(job(tmp_path))
    assert [role for role, _, _ in fakes.served] == ["eval-base", "eval-student", "eval-student"]
    assert [row["pass_at_1"] for row in json.loads((tmp_path / "eval" / "scores.json").read_text())] == [0.0, 0.0]


def test_samples_that_are_not_there_are_counted(tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        teacher.sampling, "sample", lambda asks, **rest: [ask.pool.mkdir(parents=True, exist_ok=True) for ask in asks]
    )
    outcome = run(job(tmp_path))
    assert (outcome.counts.kept, outcome.counts.dropped) == (0, {"not_sampled": 8})
    row = json.loads((tmp_path / "eval" / "scores.json").read_text())[0]
    assert (row["pass_at_1"], row["undecided"]) == (None, 1.0)


def test_samples_cut_at_another_budget_are_pointed_out(tmp_path: Path, fakes: Fakes, capsys: Any):
    fakes.plan = {"base": ["unclosed"], "student": ["right"]}
    run(job(tmp_path))
    assert "max_tokens" not in capsys.readouterr().err
    run(job(tmp_path, max_tokens=128))
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("eval: graded: ")]
    assert said == [
        "eval: 4 samples of base on gsm8k were taken under another max_tokens than 128 and would differ under it; "
        f"they are scored as they are: move {tmp_path / 'eval' / 'base' / 'gsm8k'} away to sample them anew"
    ]


def test_the_teacher_answers_too_and_no_comparison_without_both(tmp_path: Path, fakes: Fakes):
    run(job(tmp_path, models=["teacher"]))
    assert [(role, model) for role, model, _ in fakes.served] == [("eval-teacher", "some/teacher")]
    assert json.loads((tmp_path / "eval" / "comparison.json").read_text()) == []


def test_a_folder_as_base_is_known_by_its_content(tmp_path: Path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"1")
    made = job(tmp_path)
    made.recipe.sections["train"] = TrainSettings(base=str(base))
    first = resolve("base", made).revision
    (base / "model.safetensors").write_bytes(b"2")
    assert resolve("base", made).revision not in ("", first)


def test_no_student_is_one_line(tmp_path: Path):
    made = job(tmp_path)
    (tmp_path / "student" / "manifest.json").unlink()
    with pytest.raises(UserError) as error:
        resolve("student", made)
    assert error.value.line() == (
        f"no student in {tmp_path / 'student'}: run 'retort train' first; or leave 'student' out of eval.models"
    )


def model_in(folder: Path, weights: bytes, **changes: Any) -> None:
    """A folder that has what an engine reads once, and weights; `changes` go into its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen2", "hidden_size": 8, "eos_token_id": 1, **changes})
    )
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 1, "content": "<end>"}]}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    (folder / "model.safetensors").write_bytes(weights)


def arms(folder: Path, *names: str) -> None:
    trained = {}
    for name in names:
        arm, _, seed = name.partition("-")
        model_in(folder / "arms" / name, name.encode())
        trained[name] = {"arm": arm, "seed": int(seed), "hash": f"{name}-0123456789abcdef"}
    row = Manifest("arms", True, len(names), len(names), {}, 1.0, 1.0, {}, {}, "", {}, "h", {"trained": trained})
    row.write(folder / "arms")


@pytest.fixture
def compared(tmp_path: Path) -> Job:
    """A job over a base, a student and three arms of one shape, and a teacher."""
    made = job(tmp_path, models=["base", "student", "arms", "teacher"])
    model_in(tmp_path / "base", b"base")
    model_in(tmp_path / "student", b"student")
    arms(tmp_path, "student-2", "answers_only-0", "answers_only-2")
    made.recipe.sections["train"] = TrainSettings(base=str(tmp_path / "base"))
    return made


def plan_for_arms(fakes: Fakes) -> None:
    fakes.plan |= {"student-2": ["right", "wrong"], "answers_only-0": ["wrong"], "answers_only-2": ["unclosed"]}


def test_models_of_one_shape_share_an_engine(compared: Job, fakes: Fakes, monkeypatch: pytest.MonkeyPatch):
    plan_for_arms(fakes)
    swapped: list[str] = []
    monkeypatch.setattr(teacher.swap, "swap_weights", lambda engine, model: swapped.append(Path(model).name))
    run(compared)
    assert [(role, swaps) for (role, _, _), swaps in zip(fakes.served, fakes.swaps, strict=True)] == [
        ("eval-base", True),
        ("eval-teacher", False),
    ]
    assert swapped == ["student", "student-2", "answers_only-0", "answers_only-2"]
    rows = json.loads((compared.out / "scores.json").read_text())
    assert [(row["role"], row["arm"], row["seed"]) for row in rows] == [
        ("base", "base", None),
        ("student", "student", 0),
        ("student-2", "student", 2),
        ("answers_only-0", "answers_only", 0),
        ("answers_only-2", "answers_only", 2),
        ("teacher", "teacher", None),
    ]
    found = json.loads((compared.out / "arms.json").read_text())
    assert [(row["arm"], row["seeds"], row["mean"]["value"]) for row in found["arms"]] == [
        ("base", 1, 0.0),
        ("answers_only", 2, 0.0),
        ("student", 2, 0.75),
        ("teacher", 1, 1.0),
    ]
    assert [row["against"] for row in found["differences"]] == ["base", "answers_only"]
    swapped.clear()
    run(compared)
    assert swapped == [] and len(fakes.served) == 2  # nothing is missing: no engine, no swap


def test_where_a_swap_fails_the_model_gets_its_own_engine(
    compared: Job, fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    plan_for_arms(fakes)
    monkeypatch.setattr(
        teacher.swap, "swap_weights", lambda engine, model: "it is stuck" if model.endswith("answers_only-0") else None
    )
    run(compared)
    assert [role for role, _, _ in fakes.served] == ["eval-base", "eval-answers_only-0", "eval-teacher"]
    assert "eval: answers_only-0 gets an engine of its own (it is stuck)" in capsys.readouterr().err


def test_another_architecture_or_template_shares_no_engine(compared: Job, tmp_path: Path):
    models = [resolve(role, compared) for role in ("base", "student")]
    assert [[model.role for model in group] for group in sharing(models)] == [["base", "student"]]
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    assert len(sharing(models)) == 2
    (tmp_path / "base" / "chat_template.jinja").unlink()
    model_in(tmp_path / "base", b"base", hidden_size=16)
    assert len(sharing(models)) == 2


def test_arms_that_were_not_trained_are_one_line(tmp_path: Path, fakes: Fakes):
    with pytest.raises(UserError) as error:
        run(job(tmp_path, models=["base", "arms"]))
    assert error.value.line() == (
        f"no arms in {tmp_path / 'arms'}: name some in arms.arms ('student', 'answers_only', 'unverified', "
        "'verified'); or leave 'arms' out of eval.models"
    )


def test_without_arms_no_comparison_of_them_is_left(compared: Job, fakes: Fakes, monkeypatch: pytest.MonkeyPatch):
    plan_for_arms(fakes)
    monkeypatch.setattr(teacher.swap, "swap_weights", lambda engine, model: None)
    run(compared)
    settings = compared.recipe[EvalSettings].model_copy(update={"models": ["base", "student"]})
    compared.recipe.sections["eval"] = settings
    run(compared)
    assert not (compared.out / "arms.json").exists()
