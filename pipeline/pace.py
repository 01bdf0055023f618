"""How much is asked of each engine at once, and how much a minute of all of them together."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.engine import Endpoint
from pipeline.errors import UserError
from pipeline.http import Answer, Broken, Connections, Unreachable
from pipeline.progress import say

START = 32
"""Requests in flight at an engine that has answered nothing yet."""
TICK_SECONDS = 0.25
FALL = 0.7
"""What is left of the limit after a sign of too much; TCP halves, but an engine's queue tells of it sooner."""
CALM_SECONDS = 2.0
"""After a fall, before the limit may grow again."""
REST_SECONDS = 2.0
LONGEST_REST = 60.0
MEASURE_SECONDS = 2.0
QUEUED = 0.1
"""Of the requests that an engine runs: how many more may wait there, so that none of its places falls empty."""
FEW = 4
ERRORS = 10
"""Failed answers on end, none whole between them, after which it is the engine that fails and not the requests."""
REFUSED = 10
"""How many times `patience_s` an engine may turn everything away."""
TOLD_SECONDS = 60.0
"""At least, between two lines that one engine does not answer."""
FLOWING_SECONDS = 5.0
"""An engine that sent anything so lately is reached, whatever became of one connection."""


@dataclass(eq=False)
class Pace:
    """One engine's share: how many requests it may have at once.

    The limit doubles every tick until the engine says that it is too much, then grows slowly and falls by a
    third at each such sign (additive increase, multiplicative decrease); where the engine tells how many
    requests wait in its queue, that number is kept small instead.
    """

    endpoint: Endpoint
    ceiling: int
    limit: float = 0.0
    in_flight: int = 0
    doubling: bool = True
    rest_until: float = 0.0
    fell: float = 0.0
    moved: float = field(default_factory=time.monotonic)
    """When it last sent anything."""
    unreached: tuple[float, str] | None = None
    """Since when it is not reached, and why."""
    refused: tuple[float, str] | None = None
    """Since when it turns all requests away for want of room, and why."""
    rests: int = 0
    """Failures to reach it, one after the other."""
    errors: int = 0
    """Answers that failed since the last whole one."""
    refusals: int = 0
    """Requests turned away since the last whole answer."""
    metrics: str = "unknown"
    """Whether it has /metrics that can be read: unknown, yes, no."""
    tokens: float = -1.0
    """All that it has read and written, as it says."""
    engine: str = ""
    """Its name and version, where it tells."""
    waiting: int = 0
    running: int = 0
    answered: int = 0
    leaving: bool = False
    away: bool = False
    """Whether it was told that it does not answer."""
    told: float = -math.inf

    def __post_init__(self) -> None:
        self.limit = self.limit or float(min(START, self.ceiling))
        self.begun = self.moved

    def has_room(self, now: float) -> bool:
        """Return whether it may be asked for one more."""
        return self.in_flight < int(self.limit) and now >= self.rest_until and not self.leaving

    def tick(self) -> None:
        """Raise the limit where it is used up and nothing speaks against it; call every TICK_SECONDS."""
        now = time.monotonic()
        # Long answers take minutes: what flows of them is sign enough.
        living = self.answered or self.moved > self.begun
        if self.in_flight < int(self.limit) or now - self.fell < CALM_SECONDS or not living:
            return
        if self.metrics == "yes" and self.waiting > self.slack():
            return
        grown = 2 * self.limit if self.doubling else self.limit + max(0.25, 0.005 * self.limit)
        self.limit = min(float(self.ceiling), grown)

    def slack(self) -> int:
        """Return how many requests may wait in the engine's own queue."""
        return max(FEW, int(QUEUED * self.running))

    def measured(self, running: int, waiting: int, tokens: float) -> None:
        """Take what the engine says of itself; what waits there too much is not asked for again."""
        if tokens != self.tokens:
            self.tokens, self.moved = tokens, time.monotonic()
        self.running, self.waiting, self.metrics = running, waiting, "yes"
        if waiting > 2 * self.slack():
            self.doubling = False
            self.limit = max(1.0, self.in_flight - (waiting - self.slack()))

    def too_much(self, why: str, began: float, after: float | None) -> None:
        """Take a refusal for want of room (429, 503) of what was asked at `began`.

        Args:
            after: seconds to wait, where the engine said so.
        """
        now = time.monotonic()
        self.doubling = False
        self.refused = self.refused or (now, why)
        self.refusals += 1
        # What was asked before the last fall says nothing of the limit since.
        if began > self.fell:
            self.fell = now
            self.limit = max(1.0, FALL * self.limit)
        if after:
            self.rest_until = max(self.rest_until, now + after)
        elif self.refusals > self.limit:
            # It takes nothing at all: to ask on would only turn all that there is to ask into work that waits.
            self.refusals = 0
            self._rest(now)

    def failed(self, why: str) -> None:
        """Take a failure to reach it: it rests, longer each time; a moment where it sends something all the while."""
        now = time.monotonic()
        if self.moved > self.begun and now - self.moved < FLOWING_SECONDS:
            self.rest_until = max(self.rest_until, now + TICK_SECONDS)
            return
        since = self.unreached[0] if self.unreached else now
        if not self.unreached and now - self.told >= TOLD_SECONDS:
            self.told, self.away = now, True
            say(f"{self.endpoint.url} does not answer ({why}): it rests and is asked again")
        self.unreached = (since, why)
        if now >= self.rest_until:
            self._rest(now)
            self.limit = float(min(START, self.ceiling))

    def erred(self, why: str) -> bool:
        """Take an error of the engine's; return whether it fails as a whole, which says nothing of the request."""
        self.errors += 1
        if self.errors <= ERRORS:
            return False
        self.failed(why)
        return True

    def _rest(self, now: float) -> None:
        self.rests += 1
        pause = min(LONGEST_REST, REST_SECONDS * 2 ** min(self.rests - 1, 10))
        self.rest_until = now + random.uniform(pause / 2, pause)

    def idle(self, now: float) -> None:
        """Take that it has nothing to do: that it sends nothing says nothing."""
        self.moved = self.begun = now

    def alive(self) -> None:
        """Take a sign of life."""
        if self.away:
            self.away = False
            say(f"{self.endpoint.url} answers again")
        self.unreached = self.refused = None
        self.rests = 0

    def answers(self) -> None:
        """Take a whole answer."""
        self.alive()
        self.errors = self.refusals = 0


def check_patience(paces: Sequence[Pace], patience_s: float) -> None:
    """Check that some engine answers, or that not all have been silent for too long.

    Raises:
        UserError: none has answered for `patience_s`, or one turned everything away for REFUSED times as long.
    """
    troubled = [pace.unreached or pace.refused for pace in paces if not pace.leaving]
    if not troubled or not all(troubled):
        return
    since, why = max(found for found in troubled if found)
    # An engine that turns requests away lives, and says so: it is given longer.
    longer = REFUSED if any(pace.refused for pace in paces) else 1
    waited = time.monotonic() - since
    if waited > longer * patience_s:
        urls = ", ".join(pace.endpoint.url for pace in paces)
        raise UserError(
            f"no engine answers at {urls} for {waited:.0f} s ({why})",
            "start it and run the same command again: what finished is kept",
            "correct teacher.endpoints",
            "set teacher.endpoints=[] to let Retort serve teacher.model itself",
        )


class Quota:
    """Requests and tokens a minute, over all engines: a bucket of one minute that fills as time goes by."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        """Set up a quota; None stands for no limit."""
        self.rates = [rate / 60 if rate else 0.0 for rate in (requests, tokens)]
        # Six seconds' worth to begin with: a provider counts its minutes from where it likes.
        self.held = [6 * rate for rate in self.rates]
        self.at = time.monotonic()

    def take(self, tokens: float) -> bool:
        """Take a request of about so many tokens out of the bucket, or return False where there is none to take."""
        if not any(self.rates):
            return True
        now = time.monotonic()
        for place, rate in enumerate(self.rates):
            self.held[place] = min(60 * rate, self.held[place] + rate * (now - self.at))
        self.at = now
        if (self.rates[0] and self.held[0] < 1) or (self.rates[1] and self.held[1] <= 0):
            return False
        self.settle(1, tokens)
        return True

    def settle(self, requests: float, tokens: float) -> None:
        """Take so much more; negative what was taken too much."""
        self.held[0] -= requests
        self.held[1] -= tokens


RUNNING = re.compile(rb"^(?:vllm:num_requests_running|sglang:num_running_reqs)(?:\{[^}]*\})? ([\d.e+]+)", re.MULTILINE)
WAITING = re.compile(rb"^(?:vllm:num_requests_waiting|sglang:num_queue_reqs)(?:\{[^}]*\})? ([\d.e+]+)", re.MULTILINE)
TOKENS = re.compile(rb"^(?:vllm|sglang):(?:prompt|generation)_tokens_total(?:\{[^}]*\})? ([\d.e+]+)", re.MULTILINE)


async def measure(connections: Connections, pace: Pace) -> None:
    """Ask an engine how many requests it runs and how many wait there; leave the answer in its pace.

    An engine without /metrics is not asked again.
    """
    base = pace.endpoint.url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {pace.endpoint.api_key}"} if pace.endpoint.api_key else {}
    answer = Answer()
    try:
        async with asyncio.timeout(5):
            await connections.post(urlsplit(f"{base}/metrics"), headers, b"", answer)
    except (Unreachable, Broken, TimeoutError):
        return  # whether it lives is told by its requests
    running, waiting, tokens = (pattern.findall(bytes(answer.body)) for pattern in (RUNNING, WAITING, TOKENS))
    if answer.status == 200 and running and waiting:
        pace.measured(int(sum(map(float, running))), int(sum(map(float, waiting))), sum(map(float, tokens)))
        if not pace.engine:
            kind = "sglang" if b"sglang:" in answer.body else "vllm"
            pace.engine = await _version(connections, base, headers, kind)
    elif pace.metrics == "unknown" and answer.status < 500:
        pace.metrics = "no"


async def _version(connections: Connections, base: str, headers: dict[str, str], kind: str) -> str:
    """The engine's name with the version that vLLM tells at /version."""
    answer = Answer()
    try:
        async with asyncio.timeout(5):
            await connections.post(urlsplit(f"{base}/version"), headers, b"", answer)
        return f"{kind} {json.loads(bytes(answer.body))['version']}"
    except (Unreachable, Broken, TimeoutError, ValueError, KeyError, TypeError):
        return kind
