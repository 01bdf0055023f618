"""A swap cut short after any of its renames never leaves a mixture of old and new that reads as complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.manifest import read_manifest
from pipeline.recipe import load_recipe
from pipeline.stages import STAGES, run_stage


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_a_swap_cut_short(
    tmp_path: Path, standin: Any, recipe: Any, retort: Any, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    path = recipe(standin("--wrong", "0.4").url)
    run = tmp_path / "runs/small"
    assert retort("run", path, "--until", "filter").returncode == 0
    first = {name: (run / name / "part-00000.parquet").read_bytes() for name in ("accepted", "rejected")}
    other = load_recipe(path, ['filter.rules=[{rule="long_paragraph", max_chars=30}]'])
    real, done = Path.rename, []

    def cut(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", cut)
    with pytest.raises(KeyboardInterrupt):
        run_stage(STAGES["filter"], other, run, rebuild=True)
    monkeypatch.setattr(Path, "rename", real)
    run_stage(STAGES["filter"], load_recipe(path), run, rebuild=True)
    assert {name: (run / name / "part-00000.parquet").read_bytes() for name in first} == first
    assert read_manifest(run / "accepted") is not None
