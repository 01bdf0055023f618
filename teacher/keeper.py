"""Runs an engine and ends it, whole process group, when the one who asked for it is gone.

`python -m teacher.keeper STATE_FILE -- COMMAND...`: starts the command in a session of its own, writes
STATE_FILE's content on readiness elsewhere, and on SIGTERM, or when its parent dies by whatever means
(`kill -9` too), removes STATE_FILE and ends the command and all its children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.5
GRACE_SECONDS = 8.0


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    state, command = Path(arguments[0]), arguments[2:]
    parent = os.getppid()
    ending = False

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    # Ctrl-C reaches the whole foreground group; the parent decides what then becomes of the engine.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    engine = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    # The poll covers systems without a parent-death signal, and a parent gone before it was set.
    while engine.poll() is None and not ending and os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    state.unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(engine.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        end_by = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < end_by and _alive(engine):
            time.sleep(0.1)
    return engine.wait()


def _alive(engine: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the engine's group is left (the engine itself is reaped on the way)."""
    engine.poll()
    try:
        os.killpg(engine.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
