"""Parquet parts: a part appears under its final name only when it is whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.files import whole_file

ROWS_A_PART = 200_000
ROWS_A_GROUP = 2_000


def part_paths(folder: Path) -> list[Path]:
    """Return the folder's whole parts in name order."""
    return sorted(folder.glob("part-*.parquet"))


def write_part(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write one part aside, flush it, rename it into place; return the number of rows.

    Raises:
        UserError: the disk is full or not writable.
    """
    rows = 0
    with whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=ROWS_A_GROUP)
            rows += batch.num_rows
    return rows


def write_parts(folder: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> int:
    """Write rows as parts of at most ROWS_A_PART rows, in order; return the number of rows.

    The same rows give the same bytes. A stage with no rows leaves one empty part, so that readers
    find the schema.
    """
    iterator = iter(rows)
    total = 0
    number = 0
    done = False
    while not done:
        buffer: list[dict[str, Any]] = []

        def batches(buffer: list[dict[str, Any]] = buffer) -> Iterator[pa.RecordBatch]:
            nonlocal done
            written = 0
            while written < ROWS_A_PART:
                buffer.clear()
                for row in iterator:
                    buffer.append(row)
                    if len(buffer) == ROWS_A_GROUP:
                        break
                if not buffer:
                    done = True
                    return
                written += len(buffer)
                yield pa.RecordBatch.from_pylist(buffer, schema=schema)

        path = folder / f"part-{number:05d}.parquet"
        rows_written = write_part(path, batches(), schema)
        if rows_written == 0 and number > 0:
            path.unlink()
        total += rows_written
        number += 1
    return total


def count_rows(folder: Path) -> int:
    """Return the number of rows in a folder's parts.

    Raises:
        UserError: a part cannot be read.
    """
    total = 0
    for path in part_paths(folder):
        with _readable(path):
            total += pq.ParquetFile(path).metadata.num_rows
    return total


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"cannot read the part {path} ({error})",
            "restore it from a copy",
            "remove it and run the stage again (its traces are sampled anew)",
        ) from error


def held_of(folder: Path, ids: Sequence[str]) -> set[str]:
    """Return which of the ids a folder's parts hold; memory and time are for these, however large the parts are.

    Raises:
        UserError: a part cannot be read.
    """
    wanted = pa.array(ids, pa.string())
    found: set[str] = set()
    for path in part_paths(folder):
        with _readable(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_A_PART, columns=["id"]):
                found.update(batch.filter(pc.is_in(batch["id"], value_set=wanted))["id"].to_pylist())
    return found


def read_rows(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a folder's parts in part order, one row group in memory at a time.

    Raises:
        UserError: a part cannot be read (its path and why).
    """
    for path in part_paths(folder):
        with _readable(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_A_GROUP, columns=columns):
                yield from batch.to_pylist()
