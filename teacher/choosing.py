"""Which problems of a source are taken: distinct ones, in an order, up to a limit; only these are held in memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.records import Problem, Trace, content_hash
from teacher.source_settings import SourceSettings


@dataclass(order=True)
class Entry:
    """A problem with the key by which it is ordered: the smaller, the further back."""

    key: tuple[int, int]
    problem: Problem = field(compare=False)
    length: int = field(compare=False)
    """Of its reference solution."""
    finished: Trace | None = field(compare=False, default=None)
    """The trace that came with it."""


class Chosen:
    """The problems that order and limit leave of those it is given one after another; the first of equal ones stays."""

    def __init__(self, settings: SourceSettings, seed: int) -> None:
        """Set up for a source's `order` and `limit`; `seed` is what `shuffled` follows from."""
        self.duplicates = self.over = 0
        """Given twice; given, and beyond the limit."""
        self._order, self._limit, self._seed = settings.order, settings.limit, seed
        self._given = 0
        self._entries: list[Entry] = []
        self._ids: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether nothing that is still given could be taken."""
        return self._order == "given" and len(self._entries) == self._limit

    def give(self, problem: Problem, length: int, finished: Trace | None = None) -> None:
        """Give it one more problem."""
        if problem.id in self._ids:
            self.duplicates += 1
            return
        self._given += 1
        entry = Entry(self._key(problem, length), problem, length, finished)
        self._ids.add(problem.id)
        if self._limit is None or len(self._entries) < self._limit:
            heapq.heappush(self._entries, entry)
            return
        self.over += 1
        self._ids.discard(heapq.heappushpop(self._entries, entry).problem.id)

    def _key(self, problem: Problem, length: int) -> tuple[int, int]:
        if self._order == "given":
            return -self._given, 0
        # By its own text, so that a source which grows keeps the order of what it had.
        place = int(content_hash("order", self._seed if self._order == "shuffled" else 0, problem.id)[:12], 16)
        return (-place, 0) if self._order == "shuffled" else (-length, -place)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Yield what was taken, in order."""
        return iter(sorted(self._entries, reverse=True))
