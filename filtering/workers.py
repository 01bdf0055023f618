"""Worker processes that may be killed: for calls that can hang, explode or crash on a model's text."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

MEMORY_BYTES = 2 * 2**30
START_SECONDS = 120.0
"""How long a worker's imports may take."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: int | None = None
    deadline: float = 0.0


class _Ready:
    """What a worker sends once its imports are done: from then on the item's own time runs."""


@dataclass(frozen=True)
class Failure:
    """What came of a call that gave no result: the reason in words."""

    why: str


class KillablePool:
    """Runs `function` ("module:name") over items in processes; a call over its time is killed, not awaited.

    Use as a context manager. Processes are started when the first item comes.
    """

    def __init__(self, function: str, workers: int, timeout_s: float, imports: tuple[str, ...] = ()) -> None:
        """Set up a pool; `imports` names modules that a worker loads before the first item's time runs."""
        self.function, self.count, self.timeout_s, self.imports = function, workers, timeout_s, imports
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> KillablePool:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self.function, self.imports, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield each item's result in order, or a `Failure` where it ran out of time, raised or crashed."""
        done: dict[int, Any] = {}
        emitted = 0
        source = enumerate(items)
        exhausted = False
        while True:
            while not exhausted and self._has_room() and len(done) < 1000 * self.count:
                try:
                    number, item = next(source)
                except StopIteration:
                    exhausted = True
                    break
                self._send(number, item)
            busy = [worker for worker in self._workers if worker.task is not None]
            while emitted in done:
                yield done.pop(emitted)
                emitted += 1
            if not busy:
                if exhausted:
                    return
                continue
            left = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            ready = wait([worker.pipe for worker in busy], timeout=left)
            for worker in busy:
                task = worker.task
                assert task is not None
                if worker.pipe in ready:
                    try:
                        result = worker.pipe.recv()
                        if isinstance(result, _Ready):
                            worker.deadline = time.monotonic() + self.timeout_s
                        else:
                            done[task] = result
                            worker.task = None
                        continue
                    except (EOFError, OSError):
                        done[task] = Failure("the worker crashed")
                elif time.monotonic() >= worker.deadline:
                    done[task] = Failure(f"out of time after {self.timeout_s:g} s")
                else:
                    continue
                self._drop(worker)

    def _send(self, number: int, item: Any) -> None:
        while True:
            worker = self._idle()
            try:
                worker.pipe.send(item)
            except (BrokenPipeError, ConnectionResetError):
                self._drop(worker)  # it died while idle (the kernel was out of memory, say)
                continue
            worker.task = number
            if worker.deadline == 0.0:
                worker.deadline = time.monotonic() + START_SECONDS
            else:
                worker.deadline = time.monotonic() + self.timeout_s
            return

    def _drop(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)

    def _has_room(self) -> bool:
        return len(self._workers) < self.count or any(worker.task is None for worker in self._workers)

    def _idle(self) -> _Worker:
        """An idle worker, started now where all are busy."""
        for worker in self._workers:
            if worker.task is None:
                return worker
        self._workers.append(self._start())
        return self._workers[-1]


def _serve(function: str, imports: tuple[str, ...], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    for needed in imports:
        importlib.import_module(needed)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    pipe.send(_Ready())
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            result = call(item)
        except MemoryError:
            result = Failure("out of memory")
        except RecursionError:
            result = Failure("nested too deep")
        except Exception as error:  # whatever a library makes of a model's text is its trouble, not a verdict
            result = Failure(f"{type(error).__name__}: {error}"[:200])
        pipe.send(result)
