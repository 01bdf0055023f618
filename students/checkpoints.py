"""Checkpoints: which of them are whole, so that a run killed while saving resumes from the one before."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path


def newest_whole(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a folder, or None; half-written ones are removed."""
    newest: tuple[int, Path] | None = None
    for path in folder.glob("checkpoint-*"):
        step = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if step is None or not is_whole(path):
            shutil.rmtree(path)
        elif newest is None or int(step[1]) > newest[0]:
            newest = (int(step[1]), path)
    return newest[1] if newest else None


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint can be resumed: its state (written last), weights, optimiser and scheduler."""
    try:
        state = json.loads((path / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    saved = [path / "optimizer.pt", path / "scheduler.pt", *path.glob("rng_state*.pth")]
    return (
        isinstance(state, dict)
        and f"checkpoint-{state.get('global_step')}" == path.name
        and len(saved) > 2
        and all(zipfile.is_zipfile(file) for file in saved)
        and _weights_whole(path)
    )


def _weights_whole(path: Path) -> bool:
    """Whether all weight files are there, at the size that their headers give."""
    files = sorted(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            files = sorted({path / name for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError):
            return False
    return bool(files) and all(_safetensors_whole(file) for file in files)


def _safetensors_whole(file: Path) -> bool:
    try:
        with open(file, "rb") as data:
            length = int.from_bytes(data.read(8), "little")
            if length > file.stat().st_size:
                return False
            header = json.loads(data.read(length))
    except (OSError, ValueError):
        return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)
