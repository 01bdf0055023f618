"""The driver: requests in, durable completions out, against any OpenAI-compatible engines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from pipeline.engine import Completion, Endpoint, Request, Retry, complete
from pipeline.errors import UserError
from pipeline.progress import Progress

FLUSH_SECONDS = 0.05
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
REST_SECONDS = 5.0


@dataclass(frozen=True)
class DriveSettings:
    """How requests are driven; none of these changes what comes back."""

    concurrency: int = 64
    timeout_s: float = 1800.0
    attempts: int = 8
    patience_s: float = 120.0
    """How long no endpoint may answer at all before the run ends."""


@dataclass
class Tally:
    """What a drive did: requests finished, retries, tokens, and what was given up, by request id."""

    finished: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    given_up: dict[str, str] = field(default_factory=dict)


class Sink(Protocol):
    """Where completions become durable: a `pipeline.journal.Journal`, or several behind one face."""

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Make rows durable."""

    def sync_if_due(self) -> None:
        """Flush to the disk where that is due."""


class Driver:
    """Drives requests over endpoints; each completion is durable in the journal before it counts."""

    def __init__(
        self,
        endpoints: list[Endpoint],
        journal: Sink,
        to_row: Callable[[Request, Completion], dict[str, Any]],
        settings: DriveSettings,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Set up a driver.

        Args:
            endpoints: where to ask; work goes to the one with the fewest requests in flight.
            journal: an entered journal, or what stands for several.
            to_row: makes the record to store, with its `id`, from a request and its completion.
            settings: concurrency, time-outs and retries.
            trouble: asked now and then; text means that the engine is gone for good, and why.
        """
        if not endpoints:
            raise ValueError("a driver needs an endpoint")
        self.endpoints = endpoints
        self.journal = journal
        self.to_row = to_row
        self.settings = settings
        self.trouble = trouble
        self.tally = Tally()
        self._in_flight = dict.fromkeys(endpoints, 0)
        self._unreached: dict[Endpoint, tuple[float, float, str]] = {}  # first failure, last failure, why
        self._waiting: list[dict[str, Any]] = []

    def drive(self, requests: Iterable[Request], progress: Progress) -> Tally:
        """Drive all requests and return the tally; safe to kill at any moment.

        Raises:
            UserError: a permanent refusal, no endpoint answering for `patience_s`, or a full disk.
                What finished before is durable.
        """
        return asyncio.run(self._drive(iter(requests), progress))

    async def _drive(self, requests: Iterator[Request], progress: Progress) -> Tally:
        timeout = aiohttp.ClientTimeout(total=self.settings.timeout_s, sock_connect=10)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            workers = [asyncio.create_task(self._worker(session, requests)) for _ in range(self.settings.concurrency)]
            keeper = asyncio.create_task(self._keep(progress))
            everyone = asyncio.gather(*workers)
            try:
                both: set[asyncio.Future[Any]] = {everyone, keeper}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if keeper.done():
                    keeper.result()
                await everyone
            finally:
                for task in (*workers, keeper):
                    task.cancel()
                await asyncio.gather(everyone, *workers, keeper, return_exceptions=True)
                # What came back while the end was near was paid for too.
                self._flush(progress)
        return self.tally

    async def _worker(self, session: aiohttp.ClientSession, requests: Iterator[Request]) -> None:
        for request in requests:
            completion = await self._ask(session, request)
            if completion is not None:
                self.tally.prompt_tokens += completion.prompt_tokens
                self.tally.completion_tokens += completion.completion_tokens
                self._waiting.append(self.to_row(request, completion))

    async def _ask(self, session: aiohttp.ClientSession, request: Request) -> Completion | None:
        attempt = 0
        unconnected = 0
        while True:
            endpoint = self._choose()
            self._in_flight[endpoint] += 1
            try:
                completion = await complete(session, endpoint, request, attempt + 1)
                self._unreached.pop(endpoint, None)
                return completion
            except Retry as trouble:
                self.tally.retries += 1
                # Not reaching an engine says nothing of the request: only `patience_s` ends that.
                now = time.monotonic()
                if trouble.connected:
                    attempt += 1
                    self._unreached.pop(endpoint, None)
                else:
                    unconnected += 1
                    first = self._unreached.get(endpoint, (now, now, ""))[0]
                    self._unreached[endpoint] = (first, now, str(trouble))
                if attempt >= self.settings.attempts:
                    self.tally.given_up[request.id] = str(trouble)
                    return None
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt + unconnected, 10))
                pause = random.uniform(pause / 2, pause) if trouble.after is None else trouble.after
            finally:
                self._in_flight[endpoint] -= 1
            await asyncio.sleep(pause)

    async def _keep(self, progress: Progress) -> None:
        """Make completions durable as they come; end the run when no engine answers any more."""
        asked = time.monotonic()
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._flush(progress)
            now = time.monotonic()
            if now - asked < 1.0:
                continue
            asked = now
            self.journal.sync_if_due()
            if why := self.trouble():
                raise UserError(why, "run the same command again: what finished is kept")
            if len(self._unreached) == len(self.endpoints):
                since, _, why = max(self._unreached.values())
                if now - since > self.settings.patience_s:
                    urls = ", ".join(endpoint.url for endpoint in self.endpoints)
                    raise UserError(
                        f"no engine answers at {urls} for {now - since:.0f} s ({why})",
                        "start it and run the same command again: what finished is kept",
                        "correct teacher.endpoints",
                        "set teacher.endpoints=[] to let Retort serve teacher.model itself",
                    )

    def _choose(self) -> Endpoint:
        """The reachable endpoint with the fewest requests in flight; one not reached is left alone a while."""
        now = time.monotonic()
        resting = {e for e, (_, last, _) in self._unreached.items() if now - last < REST_SECONDS}
        return min(self.endpoints, key=lambda endpoint: (endpoint in resting, self._in_flight[endpoint]))

    def _flush(self, progress: Progress) -> None:
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []
        self.journal.append(rows)
        self.tally.finished += len(rows)
        progress.advance(len(rows), f"{self.tally.completion_tokens} tokens")
