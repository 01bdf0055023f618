"""Reading a benchmark's questions from a local JSONL file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def read_jsonl(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for each line that is not blank; `where` is file:line, for messages.

    Raises:
        UserError: the file is missing, cannot be read, holds no rows, or a line is not a JSON object.
    """
    ways = (f"give the path of a JSONL file as 'path' of eval.benchmarks '{name}'", "leave 'path' out to read the Hub")
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; only opening is in the try)
    except FileNotFoundError:
        raise UserError(f"no questions of '{name}' at {path}", *ways) from None
    except OSError as error:
        raise UserError(f"cannot read the questions of '{name}' at {path} ({error.strerror})", *ways) from error
    rows = 0
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # JSONDecodeError and UnicodeDecodeError alike
                raise UserError(f"{path}:{number}: not JSON ({error})", "correct or remove that line") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: not a JSON object", "correct or remove that line")
            rows += 1
            yield f"{path}:{number}", row
    if not rows:
        raise UserError(f"{path} holds no questions of '{name}'", *ways)
