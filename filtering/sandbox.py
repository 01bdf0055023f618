"""Runs Python that a model wrote in bubblewrap: no network, no files of ours, no rights, bounded in time and memory.

A program sees the interpreter and its standard library, the system's shared libraries (both read-only),
/dev/null and an empty /tmp of a few MiB. It runs as uid 65534 in its own user, process, network, IPC, host
name and cgroup namespaces, with no environment, no /proc and no /sys. Where we are root it is another user
outside too, so that the limit on processes, which the kernel waives for root, holds. It is the first process
of its namespace: when it ends, everything that it started ends.

What this does NOT cover:

- Faults of the kernel and of bubblewrap: there is no seccomp filter, every system call can be made, further
  user namespaces among them. For programs of somebody who attacks this machine, use a virtual machine.
- Memory as a whole: the limit is a process's address space, so a run can hold `processes` times
  `memory_bytes`, and System V shared memory is not bounded at all. There is no cgroup.
- The processor's side channels, and heat: two cores can be kept busy for as long as the time allows.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import math
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filtering.workers import Failure

UID = 65534
READY = b"ready\n"
"""What the sandboxed interpreter writes before the program starts: all that comes later is the program's doing."""
KILLED = 128 + signal.SIGKILL
MOST_COMPLAINT = 4096
"""Bytes of bubblewrap's own complaint that are read."""
BOOT = f"""
import marshal, os, resource, sys
limits, program, data = marshal.loads(sys.stdin.buffer.read())
for which, most in limits:
    resource.setrlimit(which, (most, most))
os.closerange(3, 256)
os.write(1, {READY!r})
exec(compile(program, "<program>", "exec"), {{"__name__": "__main__", "DATA": data}})
"""


@dataclass(frozen=True)
class Limits:
    """What a run may use; `seconds` of the processor a process, `wall_seconds` by the clock for all."""

    seconds: float = 10.0
    wall_seconds: float = 21.0
    memory_bytes: int = 512 * 2**20
    processes: int = 8
    file_bytes: int = 4 * 2**20
    tmp_bytes: int = 16 * 2**20
    files: int = 32
    output_bytes: int = 4 * 2**20

    def rlimits(self) -> list[tuple[int, int]]:
        """Return the pairs for `setrlimit`, as the sandboxed interpreter sets them."""
        return [
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, math.ceil(self.seconds)),
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_NOFILE, self.files),
            (resource.RLIMIT_MSGQUEUE, 0),
            (resource.RLIMIT_NPROC, self.processes),
        ]


@dataclass(frozen=True)
class Run:
    """How a program ended: what it wrote, the shell's exit status, and what cut it short ("time", "output", "")."""

    output: bytes
    status: int
    cut: str


def run(program: str, data: bytes = b"", limits: Limits | None = None) -> Run | Failure:
    """Run a Python program, which finds `data` as `DATA`, and return what it wrote to standard output.

    A `Failure` says why it was not run; nothing that the program does leads to one.
    """
    return Failure(why) if (why := available()) else _run(program, data, limits or Limits())


@functools.cache
def available() -> str | None:
    """Return in one line why no sandbox can be had here, or None where it can. Asked once a process."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (on Debian, sudo apt-get install bubblewrap)"
    try:
        tried = _run("print(len(DATA))", b"12345", Limits())
    except (OSError, subprocess.SubprocessError) as error:
        return f"no sandbox can be made here: {error}"
    if isinstance(tried, Failure):
        return f"bubblewrap cannot run here: {tried.why}"
    return None if tried.output == b"5\n" else f"the sandboxed interpreter does not work: {tried}"


def lacked(not_run: int) -> dict[str, str]:
    """Return what a manifest keeps where so many programs were not run for want of a sandbox: why there is none."""
    return {"no_sandbox": why} if not_run and (why := available()) else {}


def revisit(facts: Mapping[str, Any]) -> str:
    """Return why a stage should be done again: it lacked a sandbox, and now there is one. Else ""."""
    return "programs were not run, and now they can be" if "no_sandbox" in facts and not available() else ""


def _run(program: str, data: bytes, limits: Limits) -> Run | Failure:
    deadline = time.monotonic() + limits.wall_seconds
    request = os.memfd_create("request")  # a pipe would have to be fed while the outputs are read
    try:
        with open(request, "wb", closefd=False) as file:
            marshal.dump((limits.rlimits(), program, data), file)
        os.lseek(request, 0, os.SEEK_SET)
        process = subprocess.Popen(
            _command(limits.tmp_bytes),
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(_namespace(),),
            start_new_session=True,
            cwd="/",
            **_nobody(),
        )
    finally:
        os.close(request)
    assert process.stdout is not None and process.stderr is not None
    with process.stdout as out, process.stderr as err:
        try:
            output, complaint, cut = _await(process.pid, out.fileno(), err.fileno(), deadline, limits.output_bytes)
        finally:
            # The sandbox goes with bubblewrap (--die-with-parent), and with its first process all the others. Not
            # yet awaited, the number cannot belong to another process by now.
            os.killpg(process.pid, signal.SIGKILL)
            _, ended, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(ended)
    if not output.startswith(READY):
        said = complaint.decode(errors="replace").strip().splitlines()
        return Failure(said[0] if said else f"it ended with status {process.returncode} before the program started")
    if not cut and process.returncode == KILLED and used.ru_utime + used.ru_stime >= 0.9 * limits.seconds:
        cut = "time"
    return Run(output[len(READY) :], process.returncode, cut)


def _await(process: int, out: int, err: int, deadline: float, most: int) -> tuple[bytes, bytes, str]:
    """Read both pipes until the process ends, `most` bytes have come or the time is over."""
    found = {out: bytearray(), err: bytearray()}
    ends = {out: most + len(READY), err: MOST_COMPLAINT}
    with selectors.DefaultSelector() as selector, open(os.pidfd_open(process), "rb") as life:
        for pipe in found:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        selector.register(life, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
            alive = life.fileno() not in ready
            for pipe in found if not alive else [pipe for pipe in ready if pipe in found]:
                # Once it has ended, all that is left in the pipes is read: no more than a pipe holds.
                while piece := _piece(pipe):
                    found[pipe] += piece
                    if len(found[pipe]) > ends[pipe]:
                        return bytes(found[out][: ends[out]]), bytes(found[err]), "output"
                    if alive:
                        break
                if piece == b"" and alive:
                    selector.unregister(pipe)
            if not alive or time.monotonic() >= deadline:
                return bytes(found[out]), bytes(found[err]), "time" if alive else ""


def _piece(pipe: int) -> bytes | None:
    """What a pipe has now: b"" at its end, None where it has nothing."""
    try:
        return os.read(pipe, 1 << 16)
    except BlockingIOError:
        return None


def _nobody() -> dict[str, Any]:
    """Popen's arguments for being no longer root: bubblewrap too, or its death could not kill what it started."""
    return {"user": UID, "group": UID, "extra_groups": ()} if os.geteuid() == 0 else {}


@functools.cache
def _namespace() -> int:
    """Make a user namespace with uid and gid 65534 and return its descriptor, kept as long as this process.

    Where we are root, 65534 is that user outside too, and owns the namespace; root stands in it as uid 1, so that
    bubblewrap's rights in it reach folders that are closed to others, where the interpreter may lie. Where we
    are not root, 65534 stands for ourselves.

    Raises:
        OSError: it cannot be made here; the message says why.
    """
    with subprocess.Popen(
        ["unshare", "--user", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd="/",
        **_nobody(),
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            holder.stdin.write(b".")
        if holder.stdout.read(1) != b".":
            raise OSError(holder.stderr.read(MOST_COMPLAINT).decode(errors="replace").strip() or "no user namespace")
        place = Path("/proc", str(holder.pid))
        (place / "setgroups").write_text("deny")
        for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
            (place / name).write_text(f"1 0 1\n{UID} {UID} 1\n" if os.geteuid() == 0 else f"{UID} {own} 1\n")
        return os.open(place / "ns/user", os.O_RDONLY | os.O_CLOEXEC)


@functools.cache
def _command(tmp_bytes: int) -> list[str]:
    """Return bubblewrap's command line; the interpreter is bound to /python, for /root may be closed to others."""
    executable, prefix = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    binds = [("/usr/lib", "/usr/lib"), ("/usr/lib64", "/usr/lib64"), ("/lib", "/lib"), ("/lib64", "/lib64")]
    binds.append((executable, "/python/bin/python3"))
    for name in dict.fromkeys((sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))):
        binds.append((os.path.realpath(name), f"/python/{os.path.relpath(os.path.realpath(name), prefix)}"))
    # What is installed beside the standard library is no part of it.
    hidden = [f"{place}/site-packages" for name, place in binds if os.path.isdir(f"{name}/site-packages")]
    shared = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("INSTSONAME")))
    if shared.is_file():
        binds.append((str(shared), f"/python/lib/{shared.name}"))
    return [
        *("bwrap", "--userns", str(_namespace()), "--uid", str(UID), "--gid", str(UID)),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *("--clearenv", "--setenv", "LD_LIBRARY_PATH", "/python/lib", "--setenv", "LC_ALL", "C.UTF-8"),
        *(word for bind in binds for word in ("--ro-bind-try", *bind)),
        *(word for place in hidden for word in ("--tmpfs", place, "--remount-ro", place)),
        *("--dev-bind", "/dev/null", "/dev/null"),
        *("--size", str(tmp_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),
        *("/python/bin/python3", "-I", "-S", "-c", BOOT),
    ]
