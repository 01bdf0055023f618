"""Fixtures: the stand-in engine, a small recipe against it, and the command line as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class StandInEngine:
    """A stand-in engine that runs in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def counts(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counts") as response:
            found: dict[str, int] = json.load(response)
            return found


@pytest.fixture
def standin() -> Iterator[Callable[..., StandInEngine]]:
    """Start stand-in engines: standin('--wrong', '0.3')."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> StandInEngine:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/standin_engine.py"), *options], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return StandInEngine(process, int(process.stdout.readline()))

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


RECIPE = """
name = "small"
seed = 3
[problems]
path = "{problems}"
source = "sums"
license = "CC0-1.0"
[teacher]
model = "stand-in"
endpoints = ["{url}"]
[sampling]
samples = 3
patience_s = 3
concurrency = 16
[filter]
rules = [{{ rule = "truncated" }}, {{ rule = "thought_missing" }}, {{ rule = "code_fence" }}]
"""


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A file of 60 sums with their references."""
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"What is {n} plus {n * 7 % 13}?", "answer": str(n + n * 7 % 13)} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipe(tmp_path: Path, sums: Path) -> Callable[[str], Path]:
    """Write a small recipe against an endpoint and return its path."""

    def write(url: str) -> Path:
        path = tmp_path / "small.toml"
        path.write_text(RECIPE.format(problems=sums, url=url))
        return path

    return write


@pytest.fixture
def retort(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process, in the test's own folder."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            timeout=240,
            check=False,
        )

    return run
