"""A finished run's figures, read off its manifests and scores: seconds, memory, yields."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from benchmarks.results import FOLDER, Figure, keep
from eval.report import result_table
from pipeline.cli import main as retort
from pipeline.files import write_whole
from pipeline.manifest import read_manifest
from pipeline.stages import STAGES


def run(recipe: str, overrides: list[str]) -> int:
    """Run what is missing of a recipe, return the exit status."""
    return retort(["run", recipe, *overrides])


def command_of(name: str, overrides: list[str]) -> str:
    """Return the command that gives the figures of `make bench-NAME`."""
    return shlex.join(["make", f"bench-{name}", *([f"ARGS={shlex.join(overrides)}"] if overrides else [])])


def stage_figures(folder: Path, command: str, goal_s: float, goal_mb: float | None = None) -> list[Figure]:
    """Return seconds, rows kept and peak memory of each stage of a run, and their totals."""
    figures = []
    total = peak = 0.0
    for stage in STAGES.values():
        manifest = read_manifest(folder / stage.folder)
        assert manifest is not None  # the run has just ended well
        memory = manifest.peak_tree_mb or manifest.peak_rss_mb
        total, peak = total + manifest.seconds, max(peak, memory)
        figures.append(Figure(f"{stage.name} seconds", manifest.seconds, "s", command))
        figures.append(Figure(f"{stage.name} kept", manifest.kept, "rows", command))
        figures.append(Figure(f"{stage.name} peak memory", memory, "MiB", command))
    figures.append(Figure("all stages, last start of each, seconds", round(total, 1), "s", command, goal=goal_s))
    figures.append(Figure("all stages, peak memory", peak, "MiB", command, goal=goal_mb))
    return figures


def score_figures(folder: Path, command: str) -> list[Figure]:
    """Return the shares of each row of a run's scores.json."""
    return [
        Figure(f"{row['task']} {row['role']} {key}", row[key], "share", command)
        for row in json.loads((folder / "eval/scores.json").read_text())
        for key in ("pass_at_1", "se", "no_answer", "truncated")
    ]


def keep_with_table(name: str, folder: Path, figures: list[Figure]) -> None:
    """Write results/NAME.json and, beside it, the run's table as it was printed."""
    print(keep(name, figures))
    write_whole(FOLDER / f"{name}.txt", result_table(folder) + "\n")
