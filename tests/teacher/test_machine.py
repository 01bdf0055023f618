"""What an engine is told of the machine: replicas, threads, cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from teacher import machine
from teacher.settings import EngineSettings


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: {2, 5})


def model(folder: Path, size: int) -> str:
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(size)
    return str(folder)


@pytest.mark.usefixtures("two_cores")
def test_a_small_model_is_served_by_an_engine_a_core(tmp_path: Path) -> None:
    small = model(tmp_path, 5_000_000)
    settings = EngineSettings()
    assert machine.replicas(small, settings) == 2
    cores = [machine.environment(small, settings, False, number)["VLLM_CPU_OMP_THREADS_BIND"] for number in (0, 1)]
    assert cores == ["2", "5"]
    assert machine.environment(small, settings, False)["OMP_NUM_THREADS"] == "1"


@pytest.mark.usefixtures("two_cores")
def test_a_larger_model_is_served_by_one_engine_on_all_cores(tmp_path: Path) -> None:
    large = model(tmp_path, machine.SMALL_BYTES)
    assert machine.replicas(large, EngineSettings()) == 1
    assert machine.environment(large, EngineSettings(), False)["VLLM_CPU_OMP_THREADS_BIND"] == "2,5"
    assert machine.replicas("a/hub-id", EngineSettings()) == 1
    assert machine.replicas(large, EngineSettings(replicas=3)) == 3


def test_a_gpu_holds_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    small = model(tmp_path, 5_000_000)
    assert machine.replicas(small, EngineSettings()) == 1
    with pytest.raises(UserError, match="engine.replicas = 2 is for machines without a GPU") as told:
        machine.replicas(small, EngineSettings(replicas=2))
    assert "data-parallel-size = 2" in told.value.line()
