"""reasoning-gym's tasks: which of them cannot be trusted.

`python -m benchmarks.gym` draws 20 problems of every task and asks three things: that two datasets of one seed agree,
that the task's scorer gives its own reference 1, and nonsense 0. What fails stands in results/gym.json, and refused
in teacher/gym_unreliable.toml. Needs the package reasoning-gym.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

from benchmarks.results import Figure, keep

PROBLEMS = 20
SEED = 5
NONSENSE = "no such answer 17"
SECONDS = 60
COMMAND = "python -m benchmarks.gym"


def main() -> int:
    """Try every task, write the results, return the exit status: 1 where a task fails that is not refused."""
    from reasoning_gym.factory import DATASETS

    from teacher.gym import unreliable

    signal.signal(signal.SIGALRM, _out_of_time)
    found: list[Figure] = []
    for task in sorted(DATASETS):
        signal.alarm(SECONDS)
        try:
            figures = faults(task)
        except Exception as error:  # whatever a task's code raises is what we ask about
            said = f"{type(error).__name__}: {error}"[:100]
            figures = [Figure(f"{task}: fails ({said})", None, "", COMMAND)]
        finally:
            signal.alarm(0)
        found += figures
        for figure in figures:
            print(figure.figure, figure.value, "" if task in unreliable() else "NOT REFUSED", flush=True)
    print(keep("gym", found))
    return int(any(figure.figure.split(":")[0] not in unreliable() for figure in found))


def faults(task: str) -> list[Figure]:
    """Return what speaks against a task: a figure for each question that it fails."""
    import reasoning_gym

    def drawn() -> list[dict[str, Any]]:
        dataset = reasoning_gym.create_dataset(task, size=PROBLEMS, seed=SEED)
        return [dataset[place] for place in range(PROBLEMS)]

    first, second = drawn(), drawn()
    score = reasoning_gym.create_dataset(task, size=PROBLEMS, seed=SEED).score_answer
    same = sum(
        a["question"] == b["question"] and a["answer"] == b["answer"] for a, b in zip(first, second, strict=True)
    )
    without = sum(entry["answer"] is None for entry in first)
    own = min(score(str(entry["answer"]), entry) for entry in first)
    nonsense = max(score(NONSENSE, entry) for entry in first)
    figures = []
    if same < PROBLEMS:
        figures.append(Figure(f"{task}: problems that two datasets of one seed share", same, "of 20", COMMAND))
    if without:
        figures.append(Figure(f"{task}: problems without a reference answer", without, "of 20", COMMAND))
    elif own < 0.99:
        figures.append(Figure(f"{task}: lowest score of its own reference", own, "score", COMMAND))
    if nonsense > 0.5:
        figures.append(Figure(f"{task}: highest score of nonsense", nonsense, "score", COMMAND))
    return figures


def _out_of_time(*_: object) -> NoReturn:
    raise TimeoutError(f"not done after {SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
