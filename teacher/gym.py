"""Problems of reasoning-gym's tasks, drawn by a seed; those of its tasks that cannot be trusted are refused by name."""

from __future__ import annotations

import difflib
import importlib.util
import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

UNRELIABLE = Path(__file__).with_name("gym_unreliable.toml")
"""Task names and why: measured by `benchmarks/gym.py`."""


@cache
def unreliable() -> dict[str, str]:
    """Return the tasks that are refused, each with the reason."""
    return {name: str(why) for name, why in tomllib.loads(UNRELIABLE.read_text())["tasks"].items()}


def gym_rows(task: str, config: Mapping[str, Any], count: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) of a task's problems; a row has question, answer and, as JSON, what its scorer needs.

    Raises:
        UserError: reasoning-gym is not installed, no such task, one that is refused, or no count.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise UserError(
            "problems from reasoning-gym need the package reasoning-gym, which is not installed",
            "run '.venv/bin/pip install reasoning-gym'",
        )
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=1, cutoff=0.5)
        raise UserError(
            f"reasoning-gym has no task '{task}'", f"did you mean '{close[0]}'?" if close else "set problems.task"
        )
    if why := unreliable().get(task):
        raise UserError(f"reasoning-gym's task '{task}' is refused: {why}", "choose another task")
    if not count:
        raise UserError(f"reasoning-gym's task '{task}' has no end", "set problems.limit to how many to draw")
    try:
        dataset = reasoning_gym.create_dataset(task, size=count, seed=seed, **config)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"reasoning-gym's task '{task}' refuses its settings ({error})", "correct task_config"
        ) from error
    for number, entry in enumerate(dataset, start=1):
        row = {"question": entry["question"], "answer": entry["answer"], "entry": json.dumps(entry, default=str)}
        yield f"reasoning-gym:{task}:{number}", row
