"""The layout of benchmarks/results/NAME.json: a list of figures, each with its peer, its goal and the machine."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.files import write_json

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured figure. `ratio` above 1 always means better than the best peer; None where there is no peer."""

    figure: str
    value: float | None
    unit: str
    command: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    goal: float | None = None


def machine() -> str:
    """Return the machine in words: processor, cores, memory, system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line[:10] == "model name"
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    gpu = "an NVIDIA GPU" if Path("/dev/nvidiactl").exists() else "no GPU"
    return f"{model}, {cores} cores, {memory:.0f} GiB, {gpu}, {platform.system()}, Python {platform.python_version()}"


def keep(name: str, figures: list[Figure]) -> Path:
    """Write the figures to results/NAME.json with this machine's description; return the path."""
    path = FOLDER / f"{name}.json"
    here = machine()
    write_json(path, [{**asdict(figure), "machine": here} for figure in figures])
    return path
