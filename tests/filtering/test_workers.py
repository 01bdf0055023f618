"""Worker processes: results in order; what hangs, crashes or raises is a Failure, and the next call works."""

from __future__ import annotations

import os
import time

from filtering.workers import Failure, KillablePool


def act(item: str) -> str:
    """What the workers run in these tests."""
    if item == "hang":
        time.sleep(600)
    if item == "crash":
        os._exit(7)
    if item == "raise":
        raise ValueError("no good")
    if item == "memory":
        return str(len(bytearray(8 * 2**30)))
    return item.upper()


def test_trouble_is_contained() -> None:
    items = ["a", "hang", "b", "crash", "c", "raise", "d", "memory", "e"]
    with KillablePool(f"{__name__}:act", 2, timeout_s=1.0) as pool:
        list(pool.map(["warm", "warm"]))
        found = list(pool.map(items))
    assert [f if isinstance(f, str) else f.why for f in found] == [
        *(
            "A",
            "out of time after 1 s",
            "B",
            "the worker crashed",
            "C",
            "ValueError: no good",
            "D",
            "out of memory",
            "E",
        )
    ]
    assert isinstance(found[1], Failure)


def test_nothing_to_do_starts_no_process() -> None:
    with KillablePool(f"{__name__}:act", 2, timeout_s=1.0) as pool:
        assert list(pool.map([])) == []
        assert pool._workers == []
