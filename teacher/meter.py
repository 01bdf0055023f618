"""What sampling spends, counted against the recipe's budgets while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pipeline.errors import UserError
from pipeline.tally import Tally
from teacher.cost import Price, Spent
from teacher.settings import SamplingSettings

SPENT = "spent.json"
"""What sampling has cost so far, over all its starts: tokens, GPU-hours, dollars."""
SAVE_SECONDS = 5.0
Gate = Literal["ask", "wait", "stop"]
"""Whether a request may go out: now, once some of what is on its way has come, or not at all."""


def always(tally: Tally) -> Gate:
    """Return "ask": there is no budget."""
    return "ask"


class Meter:
    """Counts what sampling spends, and what is on its way, against the recipe's budgets, over all its teachers and all
    the times that it was started: what was spent is kept in a file beside the pool."""

    def __init__(self, sampling: SamplingSettings, kept: Path) -> None:
        self.over = ""
        """Which budget is spent, in words."""
        self._limits = {
            "tokens": sampling.budget_tokens,
            "dollars": sampling.budget_dollars,
            "gpu_hours": sampling.budget_gpu_hours,
        }
        self._kept = kept
        self._saved = time.monotonic()
        self._before = Spent.kept_in(kept)

    def check(self, price: Price) -> None:
        """Check that all budgets are set in what a teacher of this price has a price in.

        Raises:
            UserError: one is not.
        """
        if self._limits["gpu_hours"] and not price.gpus:
            raise UserError("sampling.budget_gpu_hours needs to know of GPUs", "set teacher.price.gpus")
        if self._limits["dollars"] and price.of_tokens(1, 1) is None and price.gpu_hour is None:
            raise UserError(
                "sampling.budget_dollars needs a price, and the price book knows none for the teacher",
                "set teacher.price = {input = ..., output = ...} in dollars per million tokens",
                "set teacher.price = {gpus = ..., gpu_hour = ...}",
            )

    @contextmanager
    def running(self, price: Price, max_tokens: int) -> Iterator[None]:
        """Count for a teacher of this price while the block runs; what it cost is kept however the block ends.

        Args:
            max_tokens: of an answer, taken for its length as long as hardly any has come.
        """
        self._price, self._longest = price, max_tokens
        self._begun: float | None = None
        self._asked = 0
        self._tally = Tally()
        self._look(self._before)
        try:
            yield
        finally:
            self._before += self.spent(self._tally)
            # Where the disk is full there is something else to be told.
            with contextlib.suppress(OSError, UserError):
                self._before.keep_in(self._kept)

    def spent(self, tally: Tally) -> Spent:
        """Return what this teacher has cost since its first request; keep it where that is due."""
        self._tally = tally
        now = time.monotonic()
        spent = Spent.of(tally, 0.0 if self._begun is None else now - self._begun, self._price)
        if now - self._saved >= SAVE_SECONDS:
            self._saved = now
            (self._before + spent).keep_in(self._kept)
        return spent

    def gate(self, tally: Tally) -> Gate:
        """Return whether a request may go out; asked before each."""
        if self._begun is None:
            self._begun = time.monotonic()
        spent = self.spent(tally)
        total = self._before + spent
        self._look(total)
        if self.over:
            return "stop"
        on_the_way = self._asked + tally.continued - tally.came - len(tally.given_up)
        if on_the_way > 0 and self._too_much(total, spent, tally, on_the_way):
            return "wait"
        self._asked += 1
        return "ask"

    def _too_much(self, total: Spent, spent: Spent, tally: Tally, on_the_way: int) -> bool:
        """Whether what is on its way will by itself use up what is left. It will cost as those before it did, of which
        one is taken to have been as long as an answer can be; hours are counted as they go by."""
        each = on_the_way / (tally.came + 1)
        coming = self._price.of_tokens(tally.prompt_tokens, tally.completion_tokens + self._longest)
        used = {
            "tokens": total.tokens + (spent.tokens + self._longest) * each,
            "dollars": None if total.dollars is None else total.dollars + (coming or 0.0) * each,
        }
        return any(
            limit is not None and value is not None and value >= limit
            for name, value in used.items()
            for limit in [self._limits[name]]
        )

    def _look(self, total: Spent) -> None:
        used = {"tokens": total.tokens, "dollars": total.dollars, "gpu_hours": total.gpu_hours}
        for name, limit in self._limits.items():
            value = used[name]
            if limit is not None and value is not None and value >= limit:
                self.over = f"sampling.budget_{name} = {limit:.12g} is spent"
