"""The journal: where a finished completion is durable before it counts.

One SQLite file in WAL mode per pool. A commit hands the rows to the operating system, so `kill -9`
loses none; the log is flushed to the disk every two seconds, so a power cut costs at most two. When
the journal has grown, it rolls into a Parquet part while the run goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.files import FULL_WAYS
from pipeline.parts import held_of, part_paths, read_rows, write_part

SYNC_SECONDS = 2.0
ROWS_AT_ONCE = 256
"""Rows held in memory while a part is written."""
ROLL_BYTES = 128 * 2**20  # parts of 64-256 MB: design.md, "Durability"
RESERVE_BYTES = 256 * 2**20
"""Of free disk, for what is on its way when nothing more is asked for: 10,000 answers of 20 KB; see RESERVE_SHARE."""
RESERVE_SHARE = 50
"""On a disk so small that the reserve would be more than a part in so many of it, that part is the reserve."""


class Journal:
    """A pool of records by id: durable appends in front, Parquet parts behind.

    The first durable write of an id wins; later ones are dropped. Use as a context manager, under
    the lock of its run (`pipeline.files.locked`): one process at a time writes a pool.
    """

    def __init__(self, folder: Path, schema: pa.Schema, roll_bytes: int = ROLL_BYTES) -> None:
        self.folder = folder
        self.schema = schema
        self.roll_bytes = roll_bytes
        self.path = folder / "journal.sqlite"
        self._bytes = 0
        self._dirty = False
        self._synced = time.monotonic()
        self._log: int | None = None

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None)
            # Rows are long: in pages of 4 KB each would be a chain of several.
            self._db.execute("PRAGMA page_size=32768")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, row TEXT NOT NULL)"
            )
            (self._bytes,) = self._db.execute("SELECT coalesce(sum(length(row)), 0) FROM rows").fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.sync()
        finally:
            if self._log is not None:
                os.close(self._log)
                self._log = None
            self._db.close()

    def _trouble(self, error: sqlite3.Error) -> UserError:
        if "full" in str(error) or "disk I/O" in str(error):
            return UserError(
                f"no disk space left while writing {self.path}; everything finished before is safe", *FULL_WAYS
            )
        return UserError(
            f"cannot use the journal {self.path} ({error})",
            "give write permission to its folder",
            "move the file away: what already rolled into parts stays, what was only in it is in that file",
        )

    def ids(self) -> set[str]:
        """Return the ids of all durable records, in the journal and in the parts."""
        found = {id for (id,) in self._db.execute("SELECT id FROM rows")}
        for row in read_rows(self.folder, columns=["id"]):
            found.add(row["id"])
        return found

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Make records durable; an id that the journal holds already keeps its first record.

        Raises:
            UserError: no disk space, or the file cannot be written. What was durable stays.
        """
        safe = [(row["id"], _text(row)) for row in rows]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO rows (id, row) VALUES (?, ?)", safe)
            self._db.execute("COMMIT")
        except BaseException as error:  # a signal in the midst of it leaves no transaction open either
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._trouble(error) from error
            raise
        self._bytes += sum(len(text) for _, text in safe)
        self._dirty = True
        self.sync_if_due()
        if self._bytes >= self.roll_bytes:
            self.roll()

    def nearly_full(self) -> UserError | None:
        """Return an error where so little disk is left that nothing more should be asked for, else None."""
        disk = shutil.disk_usage(self.folder)
        if disk.free > min(RESERVE_BYTES, disk.total // RESERVE_SHARE):
            return None
        return UserError(
            f"the disk of {self.folder} is nearly full ({disk.free / 1e6:.1f} MB left); all that came back is safe",
            *FULL_WAYS,
        )

    def sync_if_due(self) -> None:
        """Flush the log where something came in and the last flush is two seconds old; call it often."""
        if self._dirty and time.monotonic() - self._synced >= SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Flush the log to the disk."""
        if self._log is None:
            log = Path(f"{self.path}-wal")
            if not log.exists():
                return
            self._log = os.open(log, os.O_RDONLY)
        os.fsync(self._log)
        self._synced = time.monotonic()
        self._dirty = False

    def roll(self) -> None:
        """Move the journal's records into a new part (written before the rows are deleted).

        A crash between the two leaves records in both; the next `roll` leaves out what a part holds.
        """
        (count,) = self._db.execute("SELECT count(*) FROM rows").fetchone()
        if not count:
            return
        parts = part_paths(self.folder)
        number = int(parts[-1].stem.split("-")[1]) + 1 if parts else 0
        (last,) = self._db.execute("SELECT max(n) FROM rows").fetchone()
        ids = [id for (id,) in self._db.execute("SELECT id FROM rows WHERE n <= ?", (last,))]
        held = held_of(self.folder, ids)
        if len(held) < len(ids):
            write_part(self.folder / f"part-{number:05d}.parquet", self._batches(last, held), self.schema)
        try:
            # All of them: this process alone writes, and SQLite then drops their pages unread.
            self._db.execute("DELETE FROM rows")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        self._bytes = 0

    def _batches(self, last: int, held: set[str]) -> Iterator[pa.RecordBatch]:
        cursor = self._db.execute("SELECT id, row FROM rows WHERE n <= ? ORDER BY id", (last,))
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            records = [msgspec.json.decode(text) for id, text in rows if id not in held]
            if records:
                yield pa.RecordBatch.from_pylist(records, schema=self.schema)


def _text(row: dict[str, Any]) -> str:
    """A row as JSON. A lone surrogate (an engine's broken UTF-8) becomes a mark, not a crash."""
    try:
        return msgspec.json.encode(row).decode()
    except UnicodeEncodeError:
        return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()
