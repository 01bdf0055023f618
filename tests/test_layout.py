"""The house rules that a program can hold: layers, file sizes, docstrings, recipes that load."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("pipeline", "filtering", "teacher", "students", "eval")
"""Each may import those before it and itself, never those after it."""

MAX_LINES = 350
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the module and the bound name of every import, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node.lineno, node.module or "", alias.asname or alias.name


def _breaches(source: str, layer: str) -> list[str]:
    """Return what is wrong with the imports of a file that belongs to `layer`."""
    found = []
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for line, module, bound in _imports(ast.parse(source)):
        top = module.split(".")[0]
        if top in LAYERS and top not in allowed:
            found.append(f"line {line}: {layer} imports {module}; it may import {', '.join(allowed)}")
        if top in ("tests", "benchmarks"):
            found.append(f"line {line}: a package imports {module}")
        if bound == "eval":
            found.append(f"line {line}: an import hides the builtin eval")
    return found


def test_every_package_has_files() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(LAYERS)


@pytest.mark.parametrize(
    ("source", "layer", "wrong"),
    [
        ("from pipeline.records import Trace", "eval", []),
        ("import filtering.rules", "filtering", []),
        (
            "from eval.scoring import score",
            "pipeline",
            ["line 1: pipeline imports eval.scoring; it may import pipeline"],
        ),
        (
            "def late():\n    import teacher.serve",
            "filtering",
            ["line 2: filtering imports teacher.serve; it may import pipeline, filtering"],
        ),
        ("import eval.stage", "eval", ["line 1: an import hides the builtin eval"]),
        ("import eval.stage as stage", "eval", []),
        ("from benchmarks import driver", "eval", ["line 1: a package imports benchmarks"]),
    ],
)
def test_the_layer_rule_sees_what_it_should(source: str, layer: str, wrong: list[str]) -> None:
    assert _breaches(source, layer) == wrong


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_keep_to_the_layers(path: Path) -> None:
    assert _breaches(path.read_text(), path.relative_to(ROOT).parts[0]) == []


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{_name(path)} has {lines} lines: split it by noun"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_public_names_have_docstrings(path: Path) -> None:
    assert list(_undocumented(ast.parse(path.read_text()))) == []


def _undocumented(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Yield public functions, classes and methods that have no docstring."""
    for node in scope.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield f"line {node.lineno}: {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node)


def test_there_are_recipes() -> None:
    assert ROOT / "recipes/demo.toml" in RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=_name)
def test_recipe_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description, "a recipe says what it is for"
