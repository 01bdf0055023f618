"""Slow: training killed by a real `kill -9`, twice, ends in the weights of an unbroken run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_in_training_changes_nothing(
    tmp_path: Path, base: str, standin: Any, recipe: Any, retort: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    from safetensors.torch import load_file

    path = recipe(standin().url)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    done = retort("run", path, "--until", "dataset", "--run", cut)
    assert done.returncode == 0, done.stderr
    shutil.copytree(cut, whole)
    settings = [
        *(f"train.base={base}", "train.max_length=400", "train.sft.num_train_epochs=2"),
        *("train.sft.per_device_train_batch_size=2", "train.sft.save_strategy=steps", "train.sft.save_steps=5"),
    ]
    done = retort("train", path, "--run", whole, *settings)
    assert done.returncode == 0, done.stderr

    command = [sys.executable, "-m", "pipeline.cli", "train", str(path), "--run", str(cut), *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    checkpoints = cut / "student.building/checkpoints"
    seen: set[str] = set()
    for _ in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            names = {found.parent.name for found in checkpoints.glob("checkpoint-*/trainer_state.json")}
            if names - seen:
                seen |= names
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    done = retort("train", path, "--run", cut, *settings)
    assert done.returncode == 0, done.stderr
    first, second = (load_file(run / "student/model.safetensors") for run in (cut, whole))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert "up to date" in retort("train", path, "--run", cut, *settings).stderr
