"""The demo: what distillation brings, in how many seconds and how much memory.

`make bench-demo` runs recipes/demo.toml where it is not complete yet, and keeps results/demo.json and the
table beside it. There is no peer that does the same: rivals' demos end at a dataset or a checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import finished
from benchmarks.results import Figure

RUN = Path("runs/demo")
GOALS = {"base": 0.30, "answers_only": 0.15}
"""How far the student is to be ahead, in shares of pass@1."""
OF_TEACHER = 0.75


def main(overrides: list[str]) -> int:
    """Run what is missing, write the results, return the exit status."""
    if status := finished.run("recipes/demo.toml", overrides):
        return status
    command = finished.command_of("demo", overrides)
    arms = json.loads((RUN / "eval/arms.json").read_text())
    figures = finished.stage_figures(RUN, command, goal_s=720, goal_mb=8192)
    for arm in arms["arms"]:
        figures.append(
            Figure(f"{arm['arm']} pass@1, mean of the reasoning families", arm["mean"]["value"], "share", command)
        )
        figures.append(Figure(f"{arm['arm']} pass@1, its standard error", arm["mean"]["se"], "share", command))
        figures.append(Figure(f"{arm['arm']} no answer", arm["no_answer"], "share", command))
    for row in arms["differences"]:
        goal = GOALS.get(row["against"])
        figures.append(Figure(f"student - {row['against']}", row["value"], "share", command, goal=goal))
        figures.append(Figure(f"student - {row['against']}, standard error", row["se"], "share", command))
    if share := arms["of_teacher"]:
        figures.append(Figure("student / teacher", share["value"], "share", command, goal=OF_TEACHER))
    finished.keep_with_table("demo", RUN, figures + finished.score_figures(RUN, command))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
