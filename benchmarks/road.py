"""The whole road's figures, read from a finished run: seconds, memory, yields and scores.

`make bench-road` runs recipes/gsm8k-smollm2.toml where it is not complete yet (ARGS: overrides such as
problems.path=...), and keeps results/road.json and the table beside it. There is no peer that goes the whole road.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from benchmarks.results import FOLDER, Figure, keep
from eval.report import result_table
from pipeline.cli import main as retort
from pipeline.files import write_whole
from pipeline.manifest import read_manifest
from pipeline.stages import STAGES

RECIPE = "recipes/gsm8k-smollm2.toml"
RUN = Path("runs/gsm8k-smollm2")


def main(overrides: list[str]) -> int:
    """Run what is missing, write the results, return the exit status."""
    status = retort(["run", RECIPE, *overrides])
    if status:
        return status
    command = shlex.join(["make", "bench-road", *([f"ARGS={shlex.join(overrides)}"] if overrides else [])])
    figures = []
    total = 0.0
    for stage in STAGES.values():
        manifest = read_manifest(RUN / stage.folder)
        assert manifest is not None  # the run has just ended well
        total += manifest.seconds
        figures.append(Figure(f"{stage.name} seconds", manifest.seconds, "s", command))
        figures.append(Figure(f"{stage.name} kept", manifest.kept, "rows", command))
        figures.append(Figure(f"{stage.name} peak memory", manifest.peak_rss_mb, "MiB", command))
    figures.append(Figure("all stages, last start of each, seconds", round(total, 1), "s", command, goal=2400))
    for row in json.loads((RUN / "eval/scores.json").read_text()):
        for key in ("pass_at_1", "se", "no_answer", "truncated"):
            figures.append(Figure(f"{row['task']} {row['role']} {key}", row[key], "share", command))
    print(keep("road", figures))
    write_whole(FOLDER / "road.txt", result_table(RUN) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
