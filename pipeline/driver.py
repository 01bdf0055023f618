"""The driver: requests in, durable completions out, against any OpenAI-compatible engines.

One event loop. Workers take requests as engines have room (`pipeline/pace.py`); what fails in passing waits
its turn and is asked again, wherever there is room then. A keeper makes completions durable, watches streams
by what they send, and ends the run when nothing answers any more.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from pipeline.engine import CHARACTERS_A_TOKEN, Call, Completion, Endpoint, Refusal, Request, TooLong, complete
from pipeline.errors import UserError
from pipeline.http import Connections, within_files
from pipeline.pace import MEASURE_SECONDS, TICK_SECONDS, Pace, Quota, check_patience, measure
from pipeline.progress import Progress, say
from pipeline.replies import Retry
from pipeline.streams import LOOP, watch
from pipeline.tally import DriveSettings, Tally
from pipeline.work import Job, Sink

FLUSH_SECONDS = 0.05
LOOK_SECONDS = 1.0
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
WAITING = 2
"""Times the concurrency: how much work may wait to be asked again before nothing new is asked."""
FIRST_TOKENS = 2000.0
"""What a request is taken to cost of a limit in tokens a minute before the first has come back."""


class Driver:
    """Drives requests over endpoints; each completion is durable in the journal before it counts."""

    def __init__(
        self,
        endpoints: list[Endpoint],
        journal: Sink,
        to_row: Callable[[Request, Completion], dict[str, Any]],
        settings: DriveSettings,
        trouble: Callable[[Collection[Endpoint]], str | None] = lambda still: None,
        *,
        starting: Callable[[], Collection[Endpoint]] = list,
        listed: Callable[[], list[Endpoint]] | None = None,
        loops: Callable[[str], bool] | None = None,
        gave_up: Callable[[Request], None] = lambda request: None,
        follow: Callable[[Request, Completion], Request | None] = lambda request, completion: None,
        refused: Callable[[Request], Completion | None] = lambda request: None,
        note: Callable[[], str] = str,
    ) -> None:
        """Set up a driver.

        Args:
            endpoints: where to ask.
            journal: an entered journal, or what stands for several.
            to_row: makes the record to store, with its `id`, from a request and its completion.
            settings: concurrency, time-outs and retries.
            trouble: asked about once a second, with the endpoints that move no token though they have work, to
                restart them, say; text means that the run must end, and why.
            starting: tells which endpoints may take their time to answer; patience waits for them.
            listed: asked now and then for the endpoints of now: new ones join, those that are not listed
                get nothing more to do.
            loops: whether a text ends in a loop; its stream is then cut and kept, finish reason "loop".
            gave_up: told of a request that is asked no more after all its attempts.
            follow: returns a request that goes on from a completion, which is then not yet a row; None for most.
            refused: returns what stands for a request that the engine refuses as too long, where that is to be kept
                rather than to end the run; None for most.
            note: what progress says beside its counts.
        """
        if not endpoints:
            raise ValueError("a driver needs an endpoint")
        self.journal = journal
        self.to_row = to_row
        self.settings = settings
        self.trouble = trouble
        self.starting = starting
        self.listed = listed
        self.loops = loops
        self.gave_up = gave_up
        self.follow = follow
        self.refused = refused
        self.note = note
        self.tally = Tally()
        self._concurrency = within_files(settings.concurrency)
        self.paces = [Pace(endpoint, self._concurrency) for endpoint in endpoints]
        self._quota = Quota(settings.requests_per_minute, settings.tokens_per_minute)
        self._calls: set[Call] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._later: list[Job] = []
        self._numbers = 0
        self._exhausted = False
        self._waiting: list[dict[str, Any]] = []
        self._failed: BaseException | None = None
        self._ending: UserError | None = None
        """Why nothing more is asked for; what is on its way still comes."""

    def drive(self, requests: Iterable[Request | None], progress: Progress) -> Tally:
        """Drive all requests and return the tally; safe to kill at any moment.

        Args:
            requests: what to ask for; None where there is nothing to ask for until more has come back.

        Raises:
            UserError: a permanent refusal, no endpoint answering for `patience_s`, or a disk that is nearly full
                (all that was asked for has come by then) or full. What finished before is durable.
        """
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(self._drive(iter(requests), progress))

    async def _drive(self, requests: Iterator[Request | None], progress: Progress) -> Tally:
        self._requests = requests
        self._begun = time.monotonic()
        self._connections = Connections()
        try:
            await self._keep(progress)
        finally:
            for task in self._workers:
                task.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            self._connections.close()
            # What came back while the end was near was paid for too.
            self._flush(progress)
        return self.tally

    # the workers

    def _fill(self) -> None:
        """Start workers as long as engines have room and there is something to ask."""
        while len(self._workers) < self._concurrency and (found := self._next()) is not None:
            task = asyncio.get_running_loop().create_task(self._work(*found))
            self._workers.add(task)
            task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._workers.discard(task)
        if task.cancelled() or not (error := task.exception()):
            return
        if not isinstance(error, UserError):
            self._failed = self._failed or error
        elif self._ending is None:
            # What no retry mends ends the run; what is on its way was paid for, and still comes.
            self._ending = error
            if self._workers:
                say(f"{error.what}: nothing more is asked, {len(self._workers)} answers are on their way")

    async def _work(self, pace: Pace, job: Job) -> None:
        while True:
            call = Call(pace.endpoint, job.request, self.settings.stream, pace.engine)
            self._calls.add(call)
            try:
                completion = await complete(self._connections, call, job.attempt + 1)
            except Retry as trouble:
                self._again(pace, job, trouble, call)
            except Refusal as refusal:
                if not isinstance(refusal, TooLong) or (ended := self.refused(job.request)) is None:
                    raise
                say(f"{refusal.what}: kept as far as it had come")
                self._came(job, ended)
            else:
                pace.answers()
                pace.answered += 1
                self._came(job, completion)
            finally:
                pace.in_flight -= 1
                if call.answer.flows:
                    pace.moved = max(pace.moved, call.answer.moved)
                self._calls.discard(call)
            if self._failed is not None or (found := self._next()) is None:
                return
            pace, job = found

    def _next(self) -> tuple[Pace, Job] | None:
        """Where to ask next, its place taken, and what; None where no engine has room or nothing is to be asked now."""
        if self._ending is not None:
            return None
        now = time.monotonic()
        pace = min(
            (pace for pace in self.paces if pace.has_room(now)),
            key=lambda pace: pace.in_flight / pace.limit,
            default=None,
        )
        charge = self._tokens_each()
        if pace is None or not self._quota.take(charge):
            return None
        if self._later and self._later[0].ready <= now:
            pace.in_flight += 1
            job = heapq.heappop(self._later)
            job.charged = charge
            return pace, job
        # Where engines turn away whatever they are asked, the work that waits must not grow without end.
        if not self._exhausted and len(self._later) < WAITING * self._concurrency:
            try:
                request = next(self._requests)
            except StopIteration:
                self._exhausted = True
                request = None
            if request is not None:
                self._numbers += 1
                pace.in_flight += 1
                return pace, Job(0.0, self._numbers, request, charged=charge)
        self._quota.settle(-1, -charge)
        return None

    def _tokens_each(self) -> float:
        if not self.tally.came:
            return FIRST_TOKENS
        return (self.tally.prompt_tokens + self.tally.completion_tokens) / self.tally.came

    def _came(self, job: Job, completion: Completion) -> None:
        request = job.request
        used = completion.prompt_tokens + completion.completion_tokens
        self._quota.settle(0, used - job.charged)
        self.tally.came += 1
        self.tally.seconds = time.monotonic() - self._begun
        self.tally.prompt_tokens += completion.prompt_tokens
        self.tally.completion_tokens += completion.completion_tokens
        if completion.finish_reason == LOOP:
            self.tally.cut += 1
            self.tally.saved += max(0, request.params.get("max_tokens", 0) - completion.completion_tokens)
        if (more := self.follow(request, completion)) is not None:
            self.tally.continued += 1
            self._numbers += 1
            heapq.heappush(self._later, Job(0.0, self._numbers, more))
            return
        self._waiting.append(self.to_row(request, completion))

    def _again(self, pace: Pace, job: Job, trouble: Retry, call: Call) -> None:
        """Put a request back that failed in passing, or give it up."""
        self.tally.retries += 1
        job.troubles += 1
        if call.streamed and call.answer.body:
            wasted = len(call.text()) // CHARACTERS_A_TOKEN
            self.tally.wasted += wasted
            self._quota.settle(0, wasted - job.charged)
        else:
            self._quota.settle(0, -job.charged)
        # It says nothing of the request that an engine cannot be reached, has too much to do, or fails as a whole.
        if not trouble.connected:
            pace.failed(str(trouble))
        elif trouble.busy:
            pace.too_much(str(trouble), call.answer.began, trouble.after)
        elif not (trouble.failing and pace.erred(str(trouble))):
            pace.alive()
            job.attempt += 1
        if job.attempt >= self.settings.attempts:
            self.tally.given_up[job.request.id] = str(trouble)
            self.gave_up(job.request)
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(job.troubles - 1, 10))
        pause = random.uniform(pause / 2, pause)
        if not trouble.connected:
            pause = 0.0  # another engine may be there; this one rests
        # A busy engine's Retry-After holds the engine; the request may go to another.
        job.ready = time.monotonic() + (pause if trouble.busy else trouble.after or pause)
        heapq.heappush(self._later, job)

    # the keeper

    async def _keep(self, progress: Progress) -> None:
        """Keep all going until nothing is left: workers, durability, paces, watching; raise what ends the run."""
        ticked = looked = measured = 0.0
        measuring: set[asyncio.Task[None]] = set()
        self._ending = self.journal.nearly_full()
        try:
            while True:
                self._fill()
                if not self._workers and self._ending is not None:
                    raise self._ending
                if not self._workers and self._exhausted and not self._later:
                    return
                await asyncio.sleep(FLUSH_SECONDS)
                self._flush(progress)
                if self._failed is not None:
                    raise self._failed
                now = time.monotonic()
                if now - ticked >= TICK_SECONDS:
                    ticked = now
                    for pace in self.paces:
                        pace.tick()
                if now - looked >= LOOK_SECONDS:
                    looked = now
                    progress.advance(0, self._noted)
                    self.journal.sync_if_due()
                    self._ending = self._ending or self.journal.nearly_full()
                    still = watch(self._calls, self.paces, self.settings.timeout_s, self.settings.stall_s, self.loops)
                    self._join()
                    measuring = {task for task in measuring if not task.done()}
                    if not measuring and now - measured >= MEASURE_SECONDS:
                        measured = now
                        measuring = {
                            asyncio.create_task(measure(self._connections, pace))
                            for pace in self.paces
                            if pace.metrics != "no" and not pace.unreached
                        }
                    if why := self.trouble(still):
                        raise UserError(why, "run the same command again: what finished is kept")
                    waited_for = self.starting()
                    if not any(pace.endpoint in waited_for for pace in self.paces):
                        check_patience(self.paces, self.settings.patience_s)
        finally:
            for task in measuring:
                task.cancel()
            await asyncio.gather(*measuring, return_exceptions=True)

    def _join(self) -> None:
        """Let endpoints join and leave as they are listed."""
        if self.listed is None:
            return
        wanted = self.listed()
        known = {pace.endpoint for pace in self.paces}
        for pace in self.paces:
            pace.leaving = pace.endpoint not in wanted
        for endpoint in wanted:
            if endpoint not in known:
                say(f"{endpoint.url} joins")
                self.paces.append(Pace(endpoint, self._concurrency))

    def _flush(self, progress: Progress) -> None:
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []
        try:
            self.journal.append(rows)
        except BaseException:  # a signal too: the last flush, at the end, has them again
            self._waiting = rows + self._waiting
            raise
        self.tally.finished += len(rows)
        progress.advance(len(rows), self._noted)

    def _noted(self) -> str:
        return self.note() or f"{self.tally.completion_tokens} tokens"


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
