"""Recipes are strict: every problem at once, each with key, value and the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.recipe import RecipeError, load_recipe
from teacher.settings import SamplingSettings
from teacher.source_settings import ProblemsSettings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return path


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'name = "a b"\n[sampling]\ntemprature = 1.0\nsamples = 0\n[problms]\nx = 1\n'
        '[filter]\nrules = [{ rule = "code_fense" }]\n',
    )
    with pytest.raises(RecipeError) as told:
        load_recipe(path)
    assert told.value.line().splitlines() == [
        f"{path}: problms = {{\"x\": 1}}: no such section; did you mean 'problems'?",
        f"{path}: name = 'a b': must be letters, digits, '.', '_' and '-' (it names the run's folder)",
        f"{path}: sampling.samples = 0: input should be greater than 0",
        f"{path}: sampling.temprature = 1.0: no such key; did you mean 'temperature'?",
        f'{path}: filter.rules = [{{"rule": "code_fense"}}]: rule 1: no rule \'code_fense\'; '
        "did you mean 'code_fence'?",
    ]


def test_a_nested_key_is_corrected_beside_its_siblings(tmp_path: Path) -> None:
    path = write(tmp_path, "[teacher.engine]\nmax_model_length = 9\n")
    with pytest.raises(
        RecipeError, match=r"teacher.engine.max_model_length = 9: no such key; did you mean 'max_model_len'"
    ):
        load_recipe(path)


def test_a_rules_threshold_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path, '[filter]\nrules = [{ rule = "long_paragraph", max_char = 9 }]\n')
    with pytest.raises(
        RecipeError, match="rule 'long_paragraph' has no threshold 'max_char'; did you mean 'max_chars'"
    ):
        load_recipe(path)


def test_overrides_are_toml_values_or_text(tmp_path: Path) -> None:
    path = write(tmp_path, "[problems]\nlimit = 5\n")
    recipe = load_recipe(path, ["problems.limit=7", "problems.path=some/file.jsonl", "sampling.temperature=1"])
    assert recipe[ProblemsSettings].limit == 7
    assert recipe[ProblemsSettings].path == "some/file.jsonl"
    assert recipe[SamplingSettings].temperature == 1.0
    assert recipe.name == "r"


def test_what_is_wrong_with_an_override_is_told_of_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "[problems]\nlimt = 5\n")
    with pytest.raises(RecipeError) as told:
        load_recipe(path, ["sampling.sample=7", "problems.order='given'"])
    assert told.value.problems == [
        "problems.limt = 5: no such key; did you mean 'limit'?",
        "sampling.sample = 7: no such key; did you mean 'samples'? (on the command line)",
    ]


def test_an_override_without_equals_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'problems.limit' on the command line: not of the form key=value"):
        load_recipe(write(tmp_path, ""), ["problems.limit"])


def test_budgets_and_endpoints_are_not_result_settings() -> None:
    a = SamplingSettings(max_tokens=10, concurrency=1)
    b = SamplingSettings(max_tokens=99, concurrency=2)
    assert a.result_settings() == b.result_settings()
    assert a.result_settings() != SamplingSettings(temperature=0.1).result_settings()


def test_a_missing_recipe_and_broken_toml_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe at .*nowhere.toml: give the path of a TOML file"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match=r"r.toml is not valid TOML \(.*line 2.*\): correct that line"):
        load_recipe(write(tmp_path, "a = 1\nb = = 2\n"))
