"""The sandbox holds hostile programs: what they see, what they may use, and that nothing outlives them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from filtering import sandbox
from filtering.sandbox import Limits, Run
from filtering.workers import Failure
from pipeline.manifest import Manifest, settings_hash
from pipeline.recipe import load_recipe
from pipeline.stages import STAGES, differences, stage_settings

needs_bubblewrap = pytest.mark.skipif(sandbox.available() is not None, reason=f"no sandbox: {sandbox.available()}")
SHORT = Limits(seconds=1, wall_seconds=4)


def output(program: str, limits: Limits = SHORT) -> str:
    found = sandbox.run(program, limits=limits)
    assert isinstance(found, Run) and not found.cut, found
    return found.output.decode().strip()


def refused(call: str) -> str:
    """Run a call that should fail and return what it raises."""
    return output(f"import os\ntry:\n    print('done', {call})\nexcept Exception as error:\n    print(repr(error))")


@needs_bubblewrap
def test_a_program_finds_its_data_and_its_output_comes_back() -> None:
    assert sandbox.run("print(DATA.decode() * 2)", b"ab") == Run(b"abab\n", 0, "")
    assert sandbox.run("raise SystemExit(3)") == Run(b"", 3, "")


@needs_bubblewrap
def test_it_is_nobody_with_nothing() -> None:
    assert output("import os; print(os.getresuid(), os.getresgid(), os.getgroups())") == (
        "(65534, 65534, 65534) (65534, 65534, 65534) []"
    )
    assert output("import os; print(sorted(os.listdir('/')))") == "['dev', 'lib', 'lib64', 'python', 'tmp', 'usr']"
    assert output("import os; print(os.listdir('/dev'), os.listdir('/tmp'))") == "['null'] []"
    assert output("import os; print(sorted(os.environ))") == "['LC_ALL', 'LD_LIBRARY_PATH', 'PWD']"
    descriptors = "def is_open(n):\n  try: os.fstat(n); return True\n  except OSError: return False\n"
    assert output(f"import os\n{descriptors}print([n for n in range(300) if is_open(n)])") == "[0, 1, 2]"


@needs_bubblewrap
def test_the_home_folder_and_the_repository_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for place in (Path.home(), Path(sandbox.__file__).parent, Path.cwd(), tmp_path / "secret", Path("/proc"), "/etc"):
        assert refused(f"os.stat({str(place)!r})").startswith("FileNotFoundError"), place


@needs_bubblewrap
def test_nothing_can_be_written_but_tmp() -> None:
    walk = """
import os
written = []
for folder, folders, _ in os.walk("/"):
    try:
        open(folder + "/new", "w").write("x")
        written.append(folder)
    except OSError as error:
        assert error.errno in (13, 30), (folder, error)
print(written)
"""
    assert output(walk, Limits()) == "['/tmp']"


@needs_bubblewrap
def test_tmp_is_small_and_empty_again_for_the_next() -> None:
    assert refused("open('/tmp/x', 'w').write('hello')") == "done 5"
    assert output("import os; print(os.listdir('/tmp'))") == "[]"
    filled = "n = 0\ntry:\n  while n < 100:\n    open(f'/tmp/{n}', 'wb').write(bytes(2**20)); n += 1\n"
    assert output(filled + "except OSError as error: print(n, error.strerror)") == "16 No space left on device"
    assert refused("open('/tmp/x', 'wb').write(bytes(5 * 2**20))").startswith("OSError(27")


@needs_bubblewrap
def test_there_is_no_network_not_even_our_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()
        assert "ConnectionRefusedError" in refused(f"__import__('socket').create_connection({here!r}, 1)")
    assert "Network is unreachable" in refused("__import__('socket').create_connection(('8.8.8.8', 53), 1)")


@needs_bubblewrap
def test_it_cannot_become_root_or_raise_its_limits() -> None:
    assert refused("os.setuid(0)").startswith("PermissionError") or refused("os.setuid(0)").startswith("OSError(22")
    raised = "__import__('resource').setrlimit(__import__('resource').RLIMIT_NPROC, (100, 100))"
    assert "not allowed to raise maximum limit" in refused(raised)


@needs_bubblewrap
@pytest.mark.parametrize(
    ("program", "cut"),
    [
        ("while True: pass", "time"),
        ("import time; time.sleep(600)", "time"),
        ("import os, time; os.close(1); os.close(2); time.sleep(600)", "time"),
        ("import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15, 24)]; time.sleep(600)", "time"),
        ("import sys\nwhile True: sys.stdout.write('x' * 100000)", "output"),
        ("import os\nwhile True: os.write(2, b'x' * 100000)", "output"),
    ],
)
def test_what_has_no_end_is_ended(program: str, cut: str) -> None:
    found = sandbox.run(program, limits=SHORT)
    assert isinstance(found, Run) and found.cut == cut
    assert len(found.output) <= SHORT.output_bytes + 100


@needs_bubblewrap
def test_a_fork_bomb_is_small_and_dies_with_its_root() -> None:
    bomb = "import os, signal\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: signal.pause()\n    n += 1\n"
    assert output(bomb + "except OSError as error: print(n < 10, error.strerror)") == (
        "True Resource temporarily unavailable"
    )
    assert output("import os\nfor _ in range(3): os.fork()\nif os.getpid() != 1: os.execv('/x', ['x'])") == ""


@needs_bubblewrap
def test_nothing_outlives_its_time_or_its_caller() -> None:
    before = _sandboxed_processes()
    assert sandbox.run("import time; time.sleep(600)", limits=Limits(wall_seconds=1)) == Run(b"", -9, "time")
    _await(lambda: _sandboxed_processes() <= before)

    program = "from filtering import sandbox; sandbox.run('import time; time.sleep(600)')"
    with subprocess.Popen([sys.executable, "-c", program], cwd=Path(sandbox.__file__).parent.parent) as caller:
        _await(lambda: _sandboxed_processes() - before)
        caller.kill()
    _await(lambda: _sandboxed_processes() <= before)


def _await(reached: Callable[[], object]) -> None:
    """Wait until something holds; the test's own time-out ends a wait in vain."""
    while not reached():
        time.sleep(0.02)


def _sandboxed_processes() -> set[str]:
    """The numbers of all processes that run in a sandbox."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "cmdline").read_bytes().startswith(b"/python/bin/python3\0"):
                found.add(place.name)
    return found


@needs_bubblewrap
def test_memory_has_an_end() -> None:
    program = (
        "x = []\ntry:\n  while True: x.append(bytearray(10**7))\nexcept MemoryError: n = len(x); del x; print(n < 60)"
    )
    assert output(program, Limits()) == "True"


@needs_bubblewrap
def test_a_crash_is_a_status_and_no_core_is_left() -> None:
    found = sandbox.run("import ctypes; ctypes.string_at(0)", limits=SHORT)
    assert isinstance(found, Run) and found.status == 139
    assert output("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))") == "(0, 0)"


@needs_bubblewrap
def test_no_descriptor_is_left_open() -> None:
    sandbox.run("pass")
    before = os.listdir("/proc/self/fd")
    sandbox.run("pass")
    sandbox.run("while True: print('x' * 1000)")
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture
def nothing_cached() -> Iterator[None]:
    cached = (sandbox.available, sandbox._namespace, sandbox._command)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("nothing_cached")
def test_without_bubblewrap_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.run("pass") == Failure("bubblewrap is not installed (on Debian, sudo apt-get install bubblewrap)")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Puts shell scripts before the machine's own commands; in a folder that an unprivileged user can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

        def put(name: str, script: str) -> None:
            (Path(folder) / name).write_text(f"#!/bin/sh\n{script}\n")
            (Path(folder) / name).chmod(0o755)

        yield put


@needs_bubblewrap
@pytest.mark.usefixtures("nothing_cached")
def test_where_bubblewrap_is_refused_it_says_its_words(commands: Callable[[str, str], None]) -> None:
    commands("bwrap", "echo 'bwrap: Creating new namespace failed: not today' >&2; exit 1")
    assert sandbox.available() == "bubblewrap cannot run here: bwrap: Creating new namespace failed: not today"


@pytest.mark.usefixtures("nothing_cached")
def test_where_namespaces_are_forbidden_it_says_so(commands: Callable[[str, str], None]) -> None:
    commands("bwrap", "exit 1")
    commands("unshare", "echo 'unshare: Operation not permitted' >&2; exit 1")
    assert sandbox.available() == "no sandbox can be made here: unshare: Operation not permitted"


def test_a_stage_that_lacked_a_sandbox_is_done_again_once_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "recipes/demo.toml")
    stage = replace(STAGES["verify"], reads=())
    settings = stage_settings(stage, recipe)
    monkeypatch.setattr(sandbox, "available", lambda: "no bubblewrap")
    assert sandbox.lacked(0) == {}
    facts = sandbox.lacked(3)
    assert facts == {"no_sandbox": "no bubblewrap"}
    Manifest("verify", True, 3, 0, {}, 1.0, 1.0, {}, {}, settings_hash(settings), settings, "x", facts).write(
        tmp_path / "verdicts"
    )
    assert differences(stage, recipe, tmp_path) == []
    monkeypatch.setattr(sandbox, "available", lambda: None)
    assert sandbox.lacked(3) == {}
    assert differences(stage, recipe, tmp_path) == ["programs were not run, and now they can be"]
