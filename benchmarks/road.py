"""The road with SmolLM2-135M and GSM8K: seconds, memory, yields and scores.

`make bench-road` runs recipes/gsm8k-smollm2.toml where it is not complete yet (ARGS: overrides such as
problems.path=...), and keeps results/road.json and the table beside it. There is no peer that goes the whole road.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import finished

RUN = Path("runs/gsm8k-smollm2")


def main(overrides: list[str]) -> int:
    """Run what is missing, write the results, return the exit status."""
    if status := finished.run("recipes/gsm8k-smollm2.toml", overrides):
        return status
    command = finished.command_of("road", overrides)
    figures = finished.stage_figures(RUN, command, goal_s=2400) + finished.score_figures(RUN, command)
    finished.keep_with_table("road", RUN, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
