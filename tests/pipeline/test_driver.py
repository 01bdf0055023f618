"""The driver against a stand-in engine that misbehaves: exactly what was asked for comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.driver import Driver, DriveSettings, Tally
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.progress import Progress

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


def test_everything_comes_back_once(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--latency", "0.01")
    tally = drive(tmp_path, [engine.url])
    assert ids(tmp_path) == expected(50)
    assert (tally.finished, tally.retries, tally.given_up) == (50, 0, {})
    assert engine.counts()["most_at_once"] <= 16


@pytest.mark.parametrize("fault", ["500=0.4", "429=0.4", "429-after=0.4", "cut=0.4", "close=0.4", "empty=0.4"])
def test_passing_faults_are_retried(tmp_path: Path, standin: Callable[..., Any], fault: str) -> None:
    engine = standin("--faults", fault)
    tally = drive(tmp_path, [engine.url], attempts=30)
    assert ids(tmp_path) == expected(50)
    assert tally.retries == engine.counts()["faults"] > 0
    assert tally.given_up == {}


def test_a_sample_given_up_takes_no_sibling_with_it(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--faults", "500=0.5", "--seed", "4")
    tally = drive(tmp_path, [engine.url], attempts=2)
    assert 0 < len(tally.given_up) < 50
    assert sorted([*ids(tmp_path), *tally.given_up]) == expected(50)
    assert set(tally.given_up.values()) == {"HTTP 500 engine fell over"}


def test_a_hung_request_is_cut_and_asked_again(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--faults", "hang=0.2")
    drive(tmp_path, [engine.url], timeout_s=0.5, attempts=30)
    assert ids(tmp_path) == expected(50)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--key", "right"), "refuses the key \\(HTTP 401: invalid api key\\): set the environment variable SOME_KEY"),
        (("--model", "other"), "knows no model 'stand-in' .*does not exist.*: set teacher.model"),
        (("--status", "400"), "refuses the request \\(HTTP 400: as told\\): lower sampling.max_tokens"),
    ],
)
def test_a_permanent_refusal_ends_the_run_in_one_line(
    tmp_path: Path, standin: Callable[..., Any], options: tuple[str, ...], words: str
) -> None:
    engine = standin(*options)
    with pytest.raises(UserError, match=words) as told:
        drive(tmp_path, [engine.url], key="wrong")
    assert "\n" not in told.value.line()
    # It ends at once: no more than what was in flight when the first refusal came.
    assert engine.process.poll() is None


def test_a_dead_endpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no engine answers at http://127.0.0.1:9/v1 for \d+ s .*: start it and run"):
        drive(tmp_path, ["http://127.0.0.1:9/v1"])


def test_one_dead_endpoint_of_two_does_no_harm(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--latency", "0.02")
    drive(tmp_path, ["http://127.0.0.1:9/v1", engine.url], count=100)
    assert ids(tmp_path) == expected(100)


def test_an_endpoint_that_dies_loses_nothing_that_came(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--latency", "0.05")
    seen = 0

    def trouble() -> str | None:
        nonlocal seen
        seen += 1
        if seen == 2:
            engine.process.kill()
            return "the engine died"
        return None

    with Journal(tmp_path, SCHEMA) as journal:
        driver = Driver([Endpoint(engine.url, "stand-in")], journal, to_row, DriveSettings(concurrency=4), trouble)
        with (
            Progress("test", 5000) as progress,
            pytest.raises(UserError, match="the engine died: run the same command"),
        ):
            driver.drive(requests(5000), progress)
        assert len(journal.ids()) == driver.tally.finished > 0
