"""Recipes: one strict TOML file per whole run.

Each package owns the settings of its own sections; SECTIONS names them as strings, so that
`pipeline` imports nothing above it and a section is imported when a recipe is read.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UserError

SECTIONS = {
    "problems": "teacher.source_settings:ProblemsSettings",
    "teacher": "teacher.settings:TeacherSettings",
    "sampling": "teacher.settings:SamplingSettings",
    "verify": "filtering.settings:VerifySettings",
    "filter": "filtering.settings:FilterSettings",
    "dataset": "filtering.settings:DatasetSettings",
    "train": "students.settings:TrainSettings",
    "arms": "students.settings:ArmsSettings",
    "eval": "eval.settings:EvalSettings",
    "publish": "pipeline.publish:PublishSettings",
}
TOP_LEVEL = ("name", "description", "seed")


class Settings(BaseModel):
    """A section of a recipe. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    section: ClassVar[str]
    aside: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not change the result (budgets, endpoints, concurrency): left out of hashes."""

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the result, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(self.aside))

    def also(self) -> tuple[str, ...]:
        """Return further sections that, under these settings, change the result of a stage that reads this one."""
        return ()


S = TypeVar("S", bound=Settings)


class RecipeError(UserError):
    """All that is wrong with a recipe, a line each."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__(f"{path}: {'; '.join(problems)}")
        self.path = path

    def line(self) -> str:
        """One line for each problem (a recipe's problems are printed at once)."""
        return "\n".join(f"{self.path}: {problem}" for problem in self.problems) if hasattr(self, "path") else self.what


@dataclass(frozen=True)
class Recipe:
    """A recipe as read and checked."""

    path: Path
    name: str
    description: str
    seed: int
    sections: dict[str, Settings]
    given: frozenset[str] = frozenset(SECTIONS)
    """The sections that stand in the file or were overridden; the others are all defaults."""

    def __getitem__(self, kind: type[S]) -> S:
        """Return a section by its settings class."""
        found = self.sections[kind.section]
        assert isinstance(found, kind)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved recipe, as written to recipe.json."""
        return {
            "name": self.name,
            "description": self.description,
            "seed": self.seed,
            **{name: section.model_dump(mode="json") for name, section in self.sections.items()},
        }


def near(name: str, names: Sequence[str]) -> str:
    """Return the question whether the most similar of the names was meant, or all of them where none is similar."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid here: {', '.join(sorted(names))}"


def _names_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the field names valid beside the last element of a pydantic error's location."""
    for step in location[:-1]:
        field = model.model_fields.get(str(step))
        kind = field.annotation if field else None
        candidates = [kind, *getattr(kind, "__args__", ())]
        inner = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if inner is not None:
            model = inner
    return list(model.model_fields)


def _describe(section: str, kind: type[Settings], error: Any) -> str:
    location = error["loc"]
    key = ".".join([section, *map(str, location)]) if location else section
    value = json.dumps(error["input"], default=str, ensure_ascii=False)
    value = value if len(value) <= 80 else value[:77] + "..."
    if error["type"] == "extra_forbidden":
        return f"{key} = {value}: no such key; {near(str(location[-1]), _names_at(kind, location))}"
    if error["type"] == "missing":
        return f"{key}: missing; it must be set"
    message = re.sub(r"^(Value|Assertion) error, ", "", error["msg"])
    return f"{key} = {value}: {message[0].lower() + message[1:]}"


def _override(data: dict[str, Any], text: str, problems: list[str]) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        problems.append(f"'{text}' on the command line: not of the form key=value")
        return
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *parents, last = key.strip().split(".")
    table = data
    for parent in parents:
        below = table.setdefault(parent, {})
        if not isinstance(below, dict):
            problems.append(f"{key} on the command line: '{parent}' is not a table")
            return
        table = below
    table[last] = parsed


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `key=value` overrides, and check it whole.

    Raises:
        UserError: the file is missing or is not TOML.
        RecipeError: keys or values are wrong; all of them at once.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = sorted(str(found) for found in Path("recipes").glob("*.toml"))
        raise UserError(
            f"no recipe at {path}", "give the path of a TOML file", *([f"one of {', '.join(known)}"] if known else [])
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a recipe", "give the path of a TOML file") from None
    except OSError as error:
        raise UserError(f"cannot read the recipe {path} ({error.strerror})", "give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML ({error})", "correct that line") from error

    problems: list[str] = []
    for text in overrides:
        _override(data, text, problems)
    for key in data:
        if key not in SECTIONS and key not in TOP_LEVEL:
            value = json.dumps(data[key], default=str)[:80]
            problems.append(f"{key} = {value}: no such section; {near(key, [*SECTIONS, *TOP_LEVEL])}")
    name = data.get("name", path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        problems.append(f"name = {name!r}: must be letters, digits, '.', '_' and '-' (it names the run's folder)")
    seed = data.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        problems.append(f"seed = {seed!r}: must be a whole number")
        seed = 0

    sections: dict[str, Settings] = {}
    for section, where in SECTIONS.items():
        module, _, attribute = where.partition(":")
        kind: type[Settings] = getattr(importlib.import_module(module), attribute)
        given = data.get(section, {})
        if not isinstance(given, dict):
            problems.append(f"{section} = {given!r}: must be a table ([{section}])")
            continue
        try:
            sections[section] = kind.model_validate(given)
        except ValidationError as error:
            problems += [_describe(section, kind, item) for item in error.errors()]
    if problems:
        given = tuple(f"{text.partition('=')[0].strip()} = " for text in overrides)
        problems = [f"{text} (on the command line)" if text.startswith(given) else text for text in problems]
        raise RecipeError(path, problems)
    return Recipe(path, str(name), str(data.get("description", "")), seed, sections, frozenset(data) & {*SECTIONS})
