"""Verification beside sampling, in processes of its own: traces go in as they come, what became of them comes out."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from filtering.deferred import Settlement
from filtering.rules import first_reason
from filtering.settings import FilterSettings, VerifySettings
from filtering.verify import grade_by
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.records import Problem, State, Trace, Verdict

BATCH = 64
"""Traces judged in one go: so many may wait for one program that takes its time."""
CUT = {"length": "truncated", "loop": "loop"}
"""Finish reasons of traces that were cut off, and what they are called: without an answer they are undecided, and yet
tries that failed, where the policy of sampling counts."""
STUCK_SECONDS = 600.0
"""Without any verdict while traces wait, beyond what the verifiers themselves allow, after which the first of them is
given up: it is the one that is being judged, and whatever it hangs in hangs for ever."""
DEATHS = 3
"""Of the process, before it is the traces' or the machine's fault rather than chance."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a trace: its verdict, and why it is no use though it is not wrong, or None: the readability rule
    that would drop it, or that it was cut off before its answer."""

    verdict: Verdict
    reason: str | None

    @property
    def kept(self) -> bool:
        """Whether the filter will accept it."""
        return self.verdict.state == State.CORRECT and self.reason is None


def judge(settlement: Settlement, pairs: list[tuple[Problem, Trace]], rules: list[dict[str, Any]]) -> Iterator[Judged]:
    """Yield what becomes of each trace, in order: the stages `verify` and `filter` in one."""
    for (problem, trace), verdict in zip(pairs, grade_by(settlement, pairs), strict=True):
        found = first_reason(rules, problem, trace) if verdict.state == State.CORRECT else None
        cut = CUT.get(trace.finish_reason) if verdict.state == State.UNDECIDED else None
        yield Judged(verdict, found.reason if found else cut)


class Beside:
    """A process that judges; `give` and `results` never wait. Use as a context manager."""

    def __init__(self, verify: VerifySettings, filters: FilterSettings) -> None:
        """Set up the process; it starts with the first trace."""
        self.verify, self.filters = verify, filters
        self._pending: dict[str, tuple[Problem, Trace]] = {}
        self._came: queue.SimpleQueue[Judged | None] = queue.SimpleQueue()
        self._deaths = 0
        self._process: Any = None
        self._moved = 0.0
        """When the last verdict came, or the first trace after a time without any."""

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._outbox.put(None)
            self._process.kill()
            self._process.join()

    @property
    def waiting(self) -> int:
        """How many traces were given and have not come out."""
        return len(self._pending)

    def give(self, problem: Problem, trace: Trace) -> None:
        """Hand over a trace to be judged."""
        if not self._pending:
            self._moved = time.monotonic()
        self._pending[trace.id] = (problem, trace)
        if self._process is None:
            self._start()
        self._outbox.put((problem, trace))

    def results(self) -> Iterator[Judged]:
        """Yield what was judged since the last call.

        Raises:
            UserError: the process died again and again.
        """
        while True:
            try:
                found = self._came.get_nowait()
            except queue.Empty:
                if self._pending and time.monotonic() - self._moved > STUCK_SECONDS + 4 * self.verify.timeout_s:
                    yield self._given_up()
                return
            if found is not None:
                self._moved = time.monotonic()
                if self._pending.pop(found.verdict.trace_id, None):
                    yield found
                continue
            self._deaths += 1
            status = self._process.exitcode
            if self._deaths >= DEATHS:
                raise UserError(
                    f"the process that verifies beside sampling died {DEATHS} times (exit status {status})",
                    "run the same command again: every trace is kept",
                    "set sampling.keep = 0 to sample a fixed number and verify afterwards",
                    "free some memory",
                )
            self._restart()

    def _given_up(self) -> Judged:
        """Give up the trace that is being judged, and begin anew with those behind it."""
        problem, trace = self._pending.pop(next(iter(self._pending)))
        process, self._process = self._process, None
        process.kill()
        process.join()
        # What it still said, its end too, is asked for no more.
        self._came = queue.SimpleQueue()
        self._restart()
        why = f"nothing came of judging it for {time.monotonic() - self._moved:.0f} s"
        say(f"the trace {trace.id} is left undecided: {why}")
        self._moved = time.monotonic()
        return Judged(Verdict(trace.id, problem.id, State.UNDECIDED, "timeout", why, None), None)

    def _restart(self) -> None:
        self._start()
        for pair in self._pending.values():
            self._outbox.put(pair)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # No daemon: it has workers of its own. When this process goes, its pipe ends and it ends too.
        self._process = context.Process(target=_serve, args=(theirs, self.verify, self.filters))
        self._process.start()
        theirs.close()
        self._outbox: queue.SimpleQueue[tuple[Problem, Trace] | None] = queue.SimpleQueue()
        threading.Thread(target=_send, args=(self._outbox, ours), daemon=True).start()
        threading.Thread(target=_receive, args=(ours, self._came, self._process), daemon=True).start()


def _send(outbox: queue.SimpleQueue[tuple[Problem, Trace] | None], pipe: Connection) -> None:
    with contextlib.suppress(OSError, ValueError):
        while (pair := outbox.get()) is not None:
            pipe.send(pair)


def _receive(pipe: Connection, came: queue.SimpleQueue[Judged | None], process: Any) -> None:
    try:
        while True:
            came.put(pipe.recv())
    except (EOFError, OSError):
        process.join()
        came.put(None)


def _serve(pipe: Connection, verify: VerifySettings, filters: FilterSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Settlement(verify.workers, verify.timeout_s) as settlement, contextlib.suppress(EOFError, OSError):
        while True:
            pairs = [pipe.recv()]
            while len(pairs) < BATCH and pipe.poll():
                pairs.append(pipe.recv())
            for found in judge(settlement, pairs, filters.rules):
                pipe.send(found)
