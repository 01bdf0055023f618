"""Training several small students at once: a process each, of one thread each, on a machine without a GPU."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pipeline.errors import UserError
from pipeline.progress import Progress
from pipeline.stages import Job

MOST = 4
"""Processes at once; each holds about 0.7 GB of libraries."""
PR_SET_PDEATHSIG = 1

Plan = Sequence[tuple[str, int]]


def side_by_side(job: Job, count: int) -> int:
    """Return how many processes should train `count` students: one a core where they are small, else 1.

    A process costs about 10 s of imports.
    """
    from students.fit import SMALL_PARAMETERS
    from teacher.machine import has_gpu

    weights = sum(file.stat().st_size for file in job.folder("student").glob("*.safetensors"))
    if has_gpu() or weights > 4 * SMALL_PARAMETERS:
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), count, MOST))


def train_side_by_side(job: Job, planned: Plan, processes: int) -> None:
    """Train the arms of a plan, (arm, seed) each, in several processes; what each says goes to RUN/logs.

    The processes end with this one, by whatever means it ends.

    Raises:
        UserError: one of them ran into trouble; the others are stopped, what was whole is kept.
    """
    context = multiprocessing.get_context("spawn")
    (job.run / "logs").mkdir(exist_ok=True)
    crew: dict[Connection, Any] = {}
    try:
        for number in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            # In turn, so that arms of many steps do not all fall to one process.
            share = planned[number::processes]
            log = str(job.run / "logs" / f"arms-{number}.log")
            crew[ours] = context.Process(target=_work, args=(job, share, log, theirs), daemon=True)
            crew[ours].start()
            theirs.close()
        with Progress("arms", len(planned)) as progress:
            left = set(crew)
            while left:
                for pipe in wait(list(left)):
                    assert isinstance(pipe, Connection)
                    try:
                        name, trouble = pipe.recv()
                    except EOFError:
                        left.remove(pipe)
                        continue
                    if trouble:
                        raise UserError(*trouble)
                    progress.advance(1, name)
        for process in crew.values():
            process.join()
            if process.exitcode:
                raise UserError(
                    f"training an arm ended with status {process.exitcode} (logs: {job.run / 'logs'}/arms-*.log)",
                    "read the log",
                    "run the same command again: arms that are whole are kept",
                )
    finally:
        for process in crew.values():
            process.terminate()
            process.join()


def _work(job: Job, share: Plan, log: str, pipe: Connection) -> None:
    """Train a share, telling of each as it is whole: (name, None), or (name, what and ways) of a UserError."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115 (it lives as long as the process)
    from students.arms import train_arm
    from students.fit import quiet

    quiet()
    for arm, seed in share:
        try:
            train_arm(job, arm, seed)
        except UserError as error:
            pipe.send((f"{arm}-{seed}", (error.what, *error.ways)))
            return
        pipe.send((f"{arm}-{seed}", None))
