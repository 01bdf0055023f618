"""What the tests of the driver share: requests, a drive into a pool, and what is in it then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.driver import Driver
from pipeline.engine import Completion, Endpoint, Request
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.progress import Progress
from pipeline.tally import DriveSettings, Tally

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


def requests(count: int) -> Iterator[Request]:
    for n in range(count):
        yield Request(f"{n:05d}", [{"role": "user", "content": f"What is {n} plus 1?"}], {"max_tokens": 100})


def to_row(request: Request, completion: Completion) -> dict[str, Any]:
    return {"id": request.id, "text": completion.text}


def drive(pool: Path, urls: list[str], count: int = 50, key: str = "", **settings: Any) -> Tally:
    endpoints = [Endpoint(url, "stand-in", key, "SOME_KEY") for url in urls]
    with Journal(pool, SCHEMA) as journal:
        driver = Driver(endpoints, journal, to_row, DriveSettings(**{"concurrency": 16, "patience_s": 1.5, **settings}))
        with Progress("test", count) as progress:
            try:
                return driver.drive(requests(count), progress)
            finally:
                journal.roll()


def ids(pool: Path) -> list[str]:
    return sorted(row["id"] for row in read_rows(pool))


def expected(count: int) -> list[str]:
    return [f"{n:05d}" for n in range(count)]
