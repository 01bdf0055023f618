"""What sampling says of itself while it runs: how fast, how well, at what cost, and how the engines fare."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.pace import Pace
from pipeline.records import CUT_OFF, Trace
from pipeline.tally import Tally

if TYPE_CHECKING:
    from teacher.adaptive import Adaptive
    from teacher.cost import Spent

WINDOW_SECONDS = 60.0
"""Over which speeds are means."""
SHOWN = 4
"""Engines that are shown one by one."""


class Live:
    """Notes for the progress line, and the canary."""

    def __init__(self, spent: Callable[[Tally], Spent], canary: int) -> None:
        """Set up the notes.

        Args:
            spent: what a tally has cost so far.
            canary: how many traces without a thought, before any with one, are too many.
        """
        self.spent, self.canary = spent, canary
        self.without = 0
        self.kept: deque[tuple[float, int]] = deque()
        self.marks: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)])

    def saw(self, trace: Trace) -> None:
        """Take a trace that came."""
        # One that was cut off may have come to no tag.
        if self.without >= 0 and (trace.thought or trace.finish_reason not in CUT_OFF):
            self.without = -1 if trace.thought else self.without + 1

    def trouble(self) -> str | None:
        """Return why sampling should not go on: none of the first traces holds a thought."""
        if not self.canary or self.without < self.canary:
            return None
        return (
            f"none of the first {self.without} traces holds a thought (they are kept): set sampling.prefill = "
            "'<think>\\n' or the engine's reasoning parser; or sampling.extra_body = {chat_template_kwargs = "
            "{thinking = true}} for a hybrid whose template has that switch; or sampling.split = 'final_answer' for a "
            "teacher that thinks in plain text; or sampling.canary = 0 where there is to be none"
        )

    def note(self, tally: Tally, paces: Sequence[Pace], asked: Adaptive | None) -> str:
        """Return a line of what matters now."""
        now = time.monotonic()
        self.marks.append((now, tally.finished, tally.completion_tokens))
        while len(self.marks) > 2 and self.marks[0][0] < now - WINDOW_SECONDS:
            self.marks.popleft()
        since, finished, tokens = self.marks[0]
        seconds = max(now - since, 1e-3)
        parts = [
            f"{(tally.finished - finished) / seconds:.1f} traces/s, "
            f"{(tally.completion_tokens - tokens) / seconds:.0f} tokens/s"
        ]
        if asked is not None:
            kept, target = sum(domain.kept for domain in asked.domains.values()), asked.plan.keep * len(asked.problems)
            rates = [f"{name} {one.kept / one.decided:.0%}" for name, one in asked.domains.items() if one.decided]
            parts.append(f"{kept} of {target} kept" + (f" ({', '.join(rates)})" if rates else ""))
            # Hopeless problems never give theirs: it will be less.
            self.kept.append((now, kept))
            while len(self.kept) > 2 and self.kept[0][0] < now - WINDOW_SECONDS:
                self.kept.popleft()
            rate = (kept - self.kept[0][1]) / max(now - self.kept[0][0], 1e-3)
            if rate > 0 and kept < target:
                parts.append(f"at most {(target - kept) / rate:.0f} s left")
        spent = self.spent(tally)
        if spent.dollars is not None:
            parts.append(f"${spent.dollars:.2f}")
        elif spent.gpu_hours:
            parts.append(f"{spent.gpu_hours:.2f} GPU-hours")
        parts.append(health(paces))
        return "; ".join(part for part in parts if part)


def health(paces: Sequence[Pace]) -> str:
    """Return in words how many requests the engines have, and which of them do not answer."""
    flying = sum(pace.in_flight for pace in paces)
    away = [pace.endpoint.url for pace in paces if pace.unreached and not pace.leaving]
    if not away:
        each = ", ".join(f"{urlsplit(pace.endpoint.url).netloc} {pace.in_flight}/{int(pace.limit)}" for pace in paces)
        if 1 < len(paces) <= SHOWN:
            return f"{flying} in flight ({each})"
        return f"{flying} in flight" + (f" at {len(paces)} engines" if len(paces) > 1 else "")
    return f"{flying} in flight; {len(away)} of {len(paces)} engines not reached ({', '.join(away[:3])})"
