"""Rows of a source, one after another, each with where it stands: files, the Hub, reasoning-gym's tasks."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import UserError
from teacher.gym import gym_rows
from teacher.hub import hub_rows
from teacher.source_settings import SourceSettings


@dataclass(frozen=True)
class Unread:
    """A row that cannot be read: why, and how it begins."""

    why: str
    text: str


Row = tuple[str, dict[str, Any] | Unread]
"""Where a row stands, for messages, and the row."""
GYM = "reasoning-gym"
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SHOWN = 200
"""Characters of a broken row that are kept."""


def rows_of(settings: SourceSettings, seed: int) -> Iterator[Row]:
    """Yield the rows of a source, those that `only` leaves.

    Raises:
        UserError: the source cannot be read at all.
    """
    for where, row in _all_rows(settings, seed):
        if isinstance(row, dict) and any(column(row, name) not in among for name, among in settings.only.items()):
            continue
        yield where, row


def column(row: dict[str, Any], name: str) -> Any:
    """Return a column's value; `a.b` is b of the table a, unless there is a column of that whole name, and `a.0.b` is b
    of the first in the list a."""
    if name in row or "." not in name:
        return row.get(name)
    first, _, rest = name.partition(".")
    inner = row.get(first)
    if isinstance(inner, str):
        try:
            inner = json.loads(inner)
        except ValueError:
            return None
    if isinstance(inner, list):
        inner = {str(place): value for place, value in enumerate(inner)}
    return column(inner, rest) if isinstance(inner, dict) else None


def _all_rows(settings: SourceSettings, seed: int) -> Iterator[Row]:
    if settings.path:
        return file_rows(Path(settings.path))
    if settings.source == GYM:
        return gym_rows(settings.task, settings.task_config, settings.limit or 0, seed)
    return hub_rows(settings.source, settings.config, settings.split, "set problems.path to a local file")


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a local file; its kind is told by its name.

    Raises:
        UserError: no such file, not readable, of no known kind, or no table at all.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in KINDS:
        raise UserError(
            f"problems.path = {path} is of no kind that can be read",
            f"give a file whose name ends in {', '.join(KINDS)} (the first four also in .gz)",
        )
    try:
        if kind == ".parquet":
            yield from _parquet(path)
            return
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            if kind == ".jsonl":
                yield from _jsonl(path, file)
            elif kind == ".json":
                yield from _json(path, file.read())
            else:
                text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
                yield from _csv(path, text, "\t" if kind == ".tsv" else ",")
    except FileNotFoundError:
        raise UserError(
            f"no file at problems.path = {path}",
            "correct the path (it is read from the current folder)",
            "set problems.path='' to read problems.source from the Hub",
        ) from None
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read problems.path = {path} ({why})", "give a readable file") from error


def _jsonl(path: Path, file: Any) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        shown = line[:SHOWN].decode("utf-8", "replace")
        try:
            yield f"{path}:{number}", _object(json.loads(line), shown)
        except (ValueError, RecursionError):
            yield f"{path}:{number}", Unread("broken JSON", shown)


def _object(value: Any, shown: str) -> dict[str, Any] | Unread:
    return value if isinstance(value, dict) else Unread("not a JSON object", shown)


def _json(path: Path, data: bytes) -> Iterator[Row]:
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is no JSON ({error})", "give a list of objects", "name it .jsonl if it is that"
        ) from error
    if isinstance(whole, dict):
        tables = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        whole = tables[0] if len(tables) == 1 else whole
    if not isinstance(whole, list):
        raise UserError(f"{path} holds no list of objects", "give a list of objects, or JSONL")
    for number, row in enumerate(whole, start=1):
        yield f"{path}: row {number}", _object(row, json.dumps(row)[:SHOWN])


def _csv(path: Path, file: TextIO, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(file, delimiter=delimiter, restkey="", strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"{path}:{reader.line_num}", Unread(f"broken CSV ({error})", "")
            continue
        where = f"{path}:{reader.line_num}"
        if "" in row or None in row.values():
            yield where, Unread(f"not as many columns as the head's {len(reader.fieldnames or [])}", str(row)[:SHOWN])
        else:
            yield where, row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"cannot read problems.path = {path} ({_first_line(error)})", "give a whole Parquet file"
        ) from error
    number = 0
    for group in range(file.num_row_groups):
        ends = number + file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(batch_size=1024, row_groups=[group]):
                for row in _plain(batch):
                    number += 1
                    yield f"{path}: row {number}", row
        except (pa.ArrowException, OSError) as error:
            # Nothing of a damaged group can be told apart; the next one stands by itself.
            yield f"{path}: rows {number + 1} to {ends}", Unread(f"damaged Parquet ({_first_line(error)})", "")
        number = ends


def _plain(batch: Any) -> Iterator[dict[str, Any] | Unread]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield Unread("text that is not UTF-8", error.object[:SHOWN].decode("utf-8", "replace"))


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:SHOWN]
