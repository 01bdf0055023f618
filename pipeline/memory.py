"""The memory of this process and all that it started, engines included."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

EVERY_SECONDS = 1.0


def tree_mb() -> float:
    """Return the memory, in MiB, that this process and its descendants hold now.

    It sums each one's proportional set size (a page shared by n processes counts as 1/n for each), or the
    resident size where a process does not show it. Memory that is mapped and never touched does not
    count; pages of files that are mapped in (libraries, weights) do.
    """
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += _pss(process.pid) or process.memory_info().rss
        except psutil.Error:
            continue  # it ended meanwhile
    return round(total / 2**20, 1)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


class TreePeak:
    """Keeps the largest `tree_mb` of a block, looked at each second: what comes and goes between is not seen.

    `mb` holds it when the block has ended.
    """

    def __init__(self) -> None:
        self.mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> TreePeak:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self.mb = max(self.mb, tree_mb())
