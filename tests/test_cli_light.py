"""The command line and the data stages start fast: the heavy libraries are imported where they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "vllm", "transformers", "trl")
DATA_STAGES = ("problems", "traces", "verify", "filter", "dataset")


def _heavy_after(code: str) -> list[str]:
    """Run the code in a fresh interpreter and return which heavy libraries it imported."""
    code += f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    heavy: list[str] = json.loads(done.stdout.splitlines()[-1])
    return heavy


def _command(*words: str) -> str:
    return (
        "from pipeline.cli import main\n"
        "try:\n"
        f"    status = main({list(words)!r})\n"
        "except SystemExit as exit:\n"
        "    status = exit.code\n"
        "assert not status, status"
    )


@pytest.mark.parametrize("words", [("--help",), ("run", "--help")], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert _heavy_after(_command(*words)) == []


def test_the_check_sees_a_heavy_import() -> None:
    assert "torch" in _heavy_after("import sys, types\nsys.modules['torch'] = types.ModuleType('torch')")


def test_reading_recipes_imports_nothing_heavy() -> None:
    code = "from pathlib import Path\nfrom pipeline.recipe import load_recipe\n"
    assert _heavy_after(f"{code}for path in Path('recipes').rglob('*.toml'): load_recipe(path)") == []


@pytest.mark.parametrize("stage", DATA_STAGES)
def test_data_stage_imports_neither_torch_nor_vllm(stage: str) -> None:
    module = STAGES[stage].run.partition(":")[0]
    assert set(_heavy_after(f"import {module}")) & {"torch", "vllm"} == set()
