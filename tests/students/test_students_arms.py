"""Arms: as many tokens as the student's, the rows that each is said to have, and a kill that costs one training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import students.crew
import students.fit
from filtering.settings import DatasetSettings
from pipeline.errors import UserError
from pipeline.parts import write_parts
from pipeline.recipe import Recipe
from pipeline.records import Problem, Trace, Verdict
from pipeline.stages import STAGES, Job, Outcome
from students import arms, train
from students.arms import sequence
from students.draw import render_arm, traces
from students.fit import load_base
from students.render import IGNORED
from students.settings import ArmsSettings, TrainSettings

Rows = list[tuple[str, str]]
QUICK = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no"}


def trace(problem: Problem, sample: int, **rest: Any) -> dict[str, Any]:
    row = dict.fromkeys(Trace.SCHEMA.names)
    return {**row, "id": f"{problem.id}/{sample}", "problem_id": problem.id, "sample": sample, "text": "", **rest}


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Callable[..., Job]:
    """A trained student over eight rows, and a pool of two traces a problem: one right and tidy, one wrong and long."""
    problems = [
        Problem.of(
            [{"role": "user", "content": f"{n}+{n}?"}],
            domain="math", source="made", license="CC0-1.0", reference=str(2 * n), verifier="math",
        )
        for n in range(8)
    ]  # fmt: skip

    def make(trained: bool = True, **settings: Any) -> Job:
        conversations = [
            [*p.messages, {"role": "assistant", "content": f"<think>\n{'step ' * 12}\n</think>\n\n{p.reference}"}]
            for p in problems
        ]
        made = make_job(conversations, sft=QUICK)
        rows, verdicts = [], []
        for problem in problems:
            rows.append(trace(problem, 0, thought="right", answer=problem.reference, finish_reason="stop"))
            rows.append(trace(problem, 1, thought="wrong " * 9, answer=None, finish_reason="length"))
            verdicts += [
                Verdict(row["id"], problem.id, state, "numeric", "", None).to_dict()  # type: ignore[arg-type]
                for row, state in zip(rows[-2:], ("correct", "undecided"), strict=True)
            ]
        write_parts(made.run / "problems", [problem.to_dict() for problem in problems], Problem.SCHEMA)
        write_parts(made.run / "traces", rows, Trace.SCHEMA)
        write_parts(made.run / "verdicts", verdicts, Verdict.SCHEMA)
        sections = {
            "train": made.recipe[TrainSettings],
            "arms": ArmsSettings.model_validate(settings),
            "dataset": DatasetSettings(),
        }
        recipe = Recipe(Path("r.toml"), "tiny", "", 7, sections)  # type: ignore[arg-type]
        if trained:
            train.run(made)
            made.out.rename(made.run / "student")
        out = made.run / "arms.building"
        out.mkdir()
        return Job(recipe, made.run, out, STAGES["arms"])

    return make


def test_every_arm_sees_the_tokens_of_the_student(job: Callable[..., Job]) -> None:
    made = job(arms=["student", "answers_only", "unverified", "verified"], seeds=[7, 8])
    outcome = arms.run(made)
    assert (outcome.counts.entered, outcome.counts.kept) == (7, 7)
    student = json.loads((made.run / "student" / "training.json").read_text())
    facts = outcome.facts["trained"]
    assert list(facts) == [
        "student-8",
        *(f"{arm}-{seed}" for arm in ("answers_only", "unverified", "verified") for seed in (7, 8)),
    ]
    for name, fact in facts.items():
        assert abs(fact["tokens_seen"] / student["tokens"]["seen"] - 1) <= arms.APART, (name, fact)
        assert (made.out / name / "model.safetensors").exists() and not (made.out / name / "rendered.arrow").exists()
    # The same rows as the student's, at its batch in rows; short rows take more steps over more epochs.
    assert facts["student-8"]["steps"] == student["steps"] == 6
    assert facts["answers_only-7"]["rows"] == 8
    assert facts["answers_only-7"]["epochs"] > 6 and facts["answers_only-7"]["steps"] > 12
    assert len({fact["hash"] for fact in facts.values()}) == 7
    assert not list(made.out.glob("*.building"))


def test_other_seeds_keep_the_arms_that_were_trained(job: Callable[..., Job]) -> None:
    made = job(arms=["answers_only"], seeds=[1, 2])
    before = arms.run(made).facts["trained"]
    made.out.rename(made.run / "arms")
    made.out.mkdir()
    more = ArmsSettings.model_validate({"arms": ["answers_only", "verified"], "seeds": [2]})
    again = replace(made, recipe=replace(made.recipe, sections={**made.recipe.sections, "arms": more}))
    after = arms.run(again).facts["trained"]
    assert list(after) == ["answers_only-2", "verified-2"]
    weights = [run / "answers_only-2/model.safetensors" for run in (made.run / "arms", made.out)]
    assert weights[0].samefile(weights[1]) and after["answers_only-2"] == before["answers_only-2"]
    # From another dataset it is trained anew.
    shutil.rmtree(made.out)
    made.out.mkdir()
    arms.run(replace(again, fresh_inputs={"dataset": "another"}))
    assert not weights[0].samefile(weights[1])


def test_trouble_in_a_process_of_its_own_is_one_line(job: Callable[..., Job]) -> None:
    made = job(arms=["verified"], seeds=[1, 2])
    write_parts(made.run / "verdicts", [], Verdict.SCHEMA)
    with pytest.raises(UserError, match="the arm 'verified' has no rows to train on .*: take 'verified' out"):
        arms.run(made)


def test_no_arms_are_nothing_to_do(job: Callable[..., Job]) -> None:
    assert arms.run(job(trained=False)) == Outcome(arms.Counts(0, 0), {"trained": {}})


def rendered(made: Job, arm: str, tmp_path: Path, tokens: int = 10**6) -> tuple[list[str], list[str]]:
    """Return the texts of an arm's rows, whole and trained."""
    from datasets import Dataset

    base = load_base(made.recipe[TrainSettings])
    render_arm(made, arm, 1, base, tokens, tmp_path / "rows.arrow")
    rows = Dataset.from_file(str(tmp_path / "rows.arrow"))
    decode = base.tokenizer.decode
    return [decode(row["input_ids"]) for row in rows], [
        decode([label for label in row["labels"] if label != IGNORED]) for row in rows
    ]


def test_answers_only_keeps_the_tags_and_nothing_in_them(job: Callable[..., Job], tmp_path: Path) -> None:
    _, said = rendered(job(trained=False), "answers_only", tmp_path)
    assert sorted(said) == sorted(f"<think>\n\n</think>\n\n{2 * n}<|im_end|>" for n in range(8))


def test_a_trace_is_trained_as_the_teacher_ended_it(job: Callable[..., Job], tmp_path: Path) -> None:
    whole, said = rendered(job(trained=False), "unverified", tmp_path)
    assert len(said) == 8  # one a problem
    cut = [text for text in said if "wrong" in text]
    assert 0 < len(cut) < 8
    assert set(cut) == {"<think>\n" + ("wrong " * 9).strip()}  # no end of turn, no closing tag
    assert all(text.endswith("wrong") for text in whole if "wrong" in text)
    assert all(
        text.startswith("<think>\nright\n</think>\n\n") and text.endswith("<|im_end|>") for text in {*said} - {*cut}
    )


def test_verified_takes_correct_traces_alone(job: Callable[..., Job], tmp_path: Path) -> None:
    _, said = rendered(job(trained=False), "verified", tmp_path)
    assert len(said) == 8 and not any("wrong" in text for text in said)


def test_rows_are_drawn_until_the_tokens_are_reached(job: Callable[..., Job], tmp_path: Path) -> None:
    assert len(rendered(job(trained=False), "answers_only", tmp_path, tokens=100)[0]) == 3  # of 47 tokens each


def test_the_draw_depends_on_the_seed_alone(job: Callable[..., Job]) -> None:
    made = job(trained=False)

    def drawn(seed: int) -> list[str]:
        return [row["uuid"] for row in traces(made, seed, correct=False)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_an_arm_without_rows_is_one_line(job: Callable[..., Job], tmp_path: Path) -> None:
    made = job(trained=False)
    write_parts(made.run / "verdicts", [], Verdict.SCHEMA)
    with pytest.raises(UserError) as told:
        rendered(made, "verified", tmp_path)
    assert told.value.line() == (
        "the arm 'verified' has no rows to train on (0 looked at): take 'verified' out of arms.arms; "
        "or sample more traces"
    )


def test_a_kill_costs_one_training(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(arms=["answers_only"], seeds=[1, 2])

    class Killed(BaseException):
        pass

    fit = students.fit.fit
    done: list[int] = []

    def dies_at_the_second(settings: Any, rows: Any, seed: int, out: Path, name: str) -> Any:
        if len(done) == 1:
            (out / "model.safetensors").write_bytes(b"half")
            raise Killed
        done.append(seed)
        return fit(settings, rows, seed, out, name)

    monkeypatch.setattr(students.crew, "MOST", 1)
    with monkeypatch.context() as patch:
        patch.setattr(students.fit, "fit", dies_at_the_second)
        with pytest.raises(Killed):
            arms.run(made)
    assert sorted(path.name for path in made.out.iterdir()) == ["answers_only-1", "answers_only-2.building"]
    first = (made.out / "answers_only-1" / "training.json").stat().st_mtime_ns
    assert arms.run(made).counts.kept == 2
    assert (made.out / "answers_only-1" / "training.json").stat().st_mtime_ns == first
    assert sorted(path.name for path in made.out.iterdir()) == ["answers_only-1", "answers_only-2"]


def test_a_sequence_goes_through_all_rows_before_any_again() -> None:
    order = sequence([3, 3, 3, 3], 30, seed=1)
    assert [sorted(order[:4]), sorted(order[4:8]), len(order)] == [[0, 1, 2, 3], [0, 1, 2, 3], 10]
    assert order[:4] != order[4:8] or sequence([3] * 9, 54, 1)[:9] != sequence([3] * 9, 54, 1)[9:]
    assert sequence([10], 14, seed=1) == [0]  # one row is nearer to 14 than two
    assert sequence([10], 16, seed=1) == [0, 0]
    assert sequence([100], 10, seed=1) == [0]  # never nothing


def test_an_arm_named_twice_and_one_unknown_are_told() -> None:
    with pytest.raises(ValueError, match="named twice"):
        ArmsSettings(arms=["student", "student"])
    with pytest.raises(ValueError, match="'student', 'answers_only', 'unverified' or 'verified'"):
        ArmsSettings(arms=["answers"])  # type: ignore[list-item]
