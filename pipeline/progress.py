"""Progress: a bar with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 15.0
NOTE_SECONDS = 1.0


def say(text: str) -> None:
    """Print a line for the user on standard error (standard output is for results)."""
    tqdm.write(text, file=sys.stderr)


class Progress:
    """Counts work done. Use as a context manager; call `advance` as work finishes."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self.begun_with = done
        self.note: str | Callable[[], str] = ""
        self.told = -1

    def __enter__(self) -> Progress:
        self.started = self.said = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=self.total or None, initial=self.done, desc=self.what, file=sys.stderr, dynamic_ncols=True
            )
        elif self.total:
            say(f"{self.what}: {self.done} of {self.total}")
        return self

    def advance(self, count: int = 1, note: str | Callable[[], str] = "") -> None:
        """Count work as done; `note` is shown beside the numbers, made only then where it is a function.

        A total of 0 stands for one that is not known. With a count of 0 the note alone is brought up to date.
        """
        self.done += count
        self.note = note or self.note
        if self.bar is not None:
            self.bar.update(count)
            if note and time.monotonic() - self.said >= NOTE_SECONDS:
                self.said = time.monotonic()
                self.bar.set_postfix_str(self._noted(), refresh=False)
        elif time.monotonic() - self.said >= LINE_SECONDS:
            self._line()

    def _noted(self) -> str:
        return self.note() if callable(self.note) else self.note

    def _line(self) -> None:
        self.said, self.told = time.monotonic(), self.done
        elapsed = self.said - self.started
        fresh = self.done - self.begun_with
        left = f", {elapsed / fresh * (self.total - self.done):.0f} s left" if fresh and self.done < self.total else ""
        note = f", {noted}" if (noted := self._noted()) else ""
        of = f" of {self.total}" if self.total else ""
        say(f"{self.what}: {self.done}{of}, {elapsed:.0f} s{left}{note}")

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif (self.total or self.done) and self.told != self.done:
            self._line()
