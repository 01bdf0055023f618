"""Writing files so that a reader sees a whole file or none."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import UserError

FULL_WAYS = (
    "free some space and run the same command again",
    "continue on another disk with --run DIR after moving the run folder there",
)
"""The ways out of a full disk."""


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into one line. What was already written stays.

    Raises:
        UserError: on no space, quota, read-only or no permission.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no disk space left while writing {where}; everything finished before is safe", *FULL_WAYS
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(
                f"cannot write {error.filename or where} ({error.strerror})",
                "give write permission",
                "choose another folder with --run DIR",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
            raise UserError(
                f"cannot use {error.filename or where} as a folder ({error.strerror})", "choose another with --run DIR"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written aside; it takes its name, flushed, when the block ends well.

    Raises:
        UserError: the disk is full or not writable.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees all of it or none.

    Raises:
        UserError: the disk is full or not writable.
    """
    with whole_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON by `write_whole`; NaN is refused (write None)."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other Retort processes; the lock dies with the process that holds it.

    Raises:
        UserError: another process holds it (its pid).
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # in /proc, say
            raise UserError(
                f"cannot make the folder {folder} ({error.strerror})", "choose another with --run DIR"
            ) from error
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{folder} is in use by process {holder}",
                "wait for it",
                f"stop it with 'kill {holder}' (nothing is lost)",
                "use another folder with --run DIR",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
