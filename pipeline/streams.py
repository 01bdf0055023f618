"""Watching answers under way, by what they send: what takes too long, stands still, or goes round in a loop is cut."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Sequence

from pipeline.engine import Call, Endpoint
from pipeline.pace import Pace
from pipeline.replies import Retry

LOOP = "loop"
"""The finish reason of a stream that was cut for one."""
ALIVE_SECONDS = 2.0
"""Since the last byte, for a stream to be a sign of life: about two looks."""
LOOK_BYTES = 16_384
"""Of a stream's events between two looks for a loop: some 60 chunks of 16 tokens."""
LOOPED = 12.0
"""How far zlib shrinks the end of a text before its loop rule is asked, which costs more; prose comes to 2 or 3."""


def watch(
    calls: Iterable[Call],
    paces: Sequence[Pace],
    timeout_s: float,
    stall_s: float,
    loops: Callable[[str], bool] | None,
) -> list[Endpoint]:
    """Cut what is to be cut; return the endpoints that stand still, with work in hand. Call about once a second.

    A stream that has not begun waits in its engine's queue: it stands still only where the engine sends nothing
    to anybody. Answers that are not streamed are watched by what their engine says of itself (`pace.measured`), where
    it does, and by the whole time they take.

    Args:
        timeout_s: for a whole answer.
        stall_s: how long a stream may send nothing; an engine twice as long.
        loops: whether a text ends in a loop; such a stream is kept as far as it came.
    """
    now = time.monotonic()
    calls = list(calls)
    still: list[Endpoint] = []
    for pace in paces:
        own = [call for call in calls if call.endpoint is pace.endpoint]
        begun = [call.answer.moved for call in own if call.answer.flows]
        if begun and max(begun) > pace.moved and now - max(begun) < ALIVE_SECONDS:
            pace.alive()
        if own:
            pace.moved = max([pace.moved, *begun])
        else:
            pace.idle(now)
        told = pace.metrics == "yes" or any(call.streamed for call in own)
        # Twice as long as for a stream: one that stands still says nothing of the others.
        if told and now - pace.moved > 2 * stall_s:
            still.append(pace.endpoint)
            pace.idle(now)
            pace.failed(f"it moved no token for {2 * stall_s:g} s")
    for call in calls:
        answer = call.answer
        if call.endpoint in still:
            # It says nothing of the request.
            answer.cut(Retry(f"the engine moved no token for {2 * stall_s:g} s", connected=False))
        elif now - answer.began > timeout_s:
            answer.cut(Retry("no answer in time"))
        elif not call.streamed:
            continue
        elif answer.flows and now - answer.moved > stall_s:
            answer.cut(Retry(f"the stream stood still for {stall_s:g} s"))
        elif loops is not None and len(answer.body) - call.looked > LOOK_BYTES:
            call.looked = len(answer.body)
            tail = call.text(2 * LOOK_BYTES).encode()
            if len(tail) > LOOPED * len(zlib.compress(tail, 1)) and loops(call.text()):
                call.cut_for = LOOP
                answer.cut()
    return still
