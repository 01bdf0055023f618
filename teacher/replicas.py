"""The processes of an engine that is ours: started, watched, restarted where they die or stand still."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.engine import Endpoint
from pipeline.progress import say
from teacher.machine import has_gpu

RESTARTS = 3
"""Of one replica, before its end is the end of the run."""
CALM_SECONDS = 3600.0
"""After a restart without another, it is forgotten: a run of weeks sees many."""
TERMINATE_SECONDS = 20.0
"""The keeper's own grace is 8 s."""


@dataclass
class Replica:
    """One process of an engine, and how it was started."""

    endpoint: Endpoint
    log: Path
    command: list[str]
    environment: dict[str, str]
    start_timeout_s: float
    process: subprocess.Popen[bytes]
    restarts: int = 0
    ended: float = 0.0
    """When it was told to end."""
    lost: bool = False
    """Whether it is given up."""
    restarted: float = 0.0
    """When it was last."""
    patient_until: float = 0.0
    """Until when it may take to answer after a restart."""

    @classmethod
    def started(
        cls, endpoint: Endpoint, log: Path, command: list[str], environment: dict[str, str], start_timeout_s: float
    ) -> Replica:
        """Start a process. In the main thread: it gets the signal of its parent's death when its thread ends."""
        return cls(endpoint, log, command, environment, start_timeout_s, _start(command, log, environment))

    def again(self) -> None:
        """Start it once more, on the same port."""
        self.restarts += 1
        self.ended = 0.0
        self.restarted = time.monotonic()
        self.patient_until = self.restarted + self.start_timeout_s
        self.process = _start(self.command, self.log, self.environment)


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with open(log, "ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )


@dataclass
class Engine:
    """A served model: where its replicas listen, and the tending of them.

    `replicas` is empty for an engine that another process started.
    """

    endpoints: list[Endpoint]
    logs: list[Path]
    replicas: list[Replica] = field(default_factory=list)
    may_restart: bool = True
    """Not where weights were swapped since it started: it would come back with those it started with."""

    @property
    def takes_seeds(self) -> bool:
        """Whether a request may carry a seed.

        vLLM 0.32 dies of one on the CPU ("CPU Generator does not use offset").
        """
        return has_gpu()

    def trouble(self) -> str | None:
        """Return why a replica of the engine is gone, or None while all live."""
        for replica in self.replicas:
            if replica.process.poll() is not None:
                why = f"{last_words(replica.log)}; log: {replica.log}"
                return f"the engine for {replica.endpoint.model} died with status {replica.process.returncode} ({why})"
        return None

    def tend(self, stalled: Collection[Endpoint]) -> str | None:
        """Restart replicas that died or stand still; return why one is given up, or None.

        Call it about once a second, from the main thread; it does not wait.

        Args:
            stalled: where nothing moves although there is work.
        """
        if not self.may_restart:
            return self.trouble()
        now = time.monotonic()
        for replica in self.replicas:
            if replica.restarts and now - replica.restarted > CALM_SECONDS:
                replica.restarts = 0
            if replica.process.poll() is not None:
                why = last_words(replica.log) if not replica.ended else "it stood still"
                told = f"the engine at {replica.endpoint.url} for {replica.endpoint.model} is gone ({why}"
                if replica.restarts >= RESTARTS:
                    if not self._others(replica):
                        return f"{told}; restarted {RESTARTS} times before; log: {replica.log})"
                    if not replica.lost:
                        replica.lost = True
                        say(f"{told}; restarted {RESTARTS} times before; log: {replica.log}): the others go on without")
                    continue
                say(f"{told}; log: {replica.log}): starting it again")
                replica.again()
            elif replica.ended:
                if now - replica.ended > TERMINATE_SECONDS:
                    replica.process.kill()
            elif replica.endpoint in stalled:
                replica.ended = now
                replica.process.terminate()
        return None

    def _others(self, gone: Replica) -> bool:
        """Whether any other replica lives or may be restarted."""
        return any(one is not gone and (one.process.poll() is None or one.restarts < RESTARTS) for one in self.replicas)

    def starting(self) -> list[Endpoint]:
        """Return the endpoints of replicas that were restarted and may take their time to answer."""
        now = time.monotonic()
        return [replica.endpoint for replica in self.replicas if now < replica.patient_until]


def last_words(log: Path) -> str:
    """Return the line of an engine's log that most likely says why it ended."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "no log"
    # The first error is the cause; those after it tell of its consequences.
    errors = [
        found[0]
        for line in lines
        if (found := re.search(r"\b\w*(?:Error|Exception): .+", line)) and "WARNING" not in line
    ]
    return (errors or lines[-1:] or ["it said nothing"])[0][:300]
