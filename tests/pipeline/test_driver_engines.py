"""The driver and its engines: how much each is asked, which join, leave, stand still or fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline.driver import Driver
from pipeline.engine import Endpoint, Request
from pipeline.errors import UserError
from pipeline.http import Answer, Connections
from pipeline.journal import Journal
from pipeline.pace import Pace
from pipeline.progress import Progress
from pipeline.tally import DriveSettings
from tests.pipeline.driving import SCHEMA, drive, expected, ids, requests, to_row


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off as it is done, in a twentieth of the time."""
    monkeypatch.setattr("pipeline.driver.FIRST_PAUSE", 0.025)


def test_an_engine_that_refuses_what_is_too_much_gets_less(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--limit", "10", "--latency", "0.05")
    tally = drive(tmp_path, [engine.url], count=400, concurrency=200, attempts=2)
    # A refusal for want of room is no attempt: nothing is given up, and most of what is asked is answered.
    assert ids(tmp_path) == expected(400)
    assert tally.given_up == {}
    assert engine.counts()["refused"] < 400


def test_an_engines_own_queue_is_kept_short(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--slots", "20", "--latency", "0.2")
    drive(tmp_path, [engine.url], count=1500, concurrency=1000)
    assert ids(tmp_path) == expected(1500)
    assert engine.counts()["most_at_once"] < 200


def test_an_engine_that_starts_slowly_is_waited_for(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--slow-start", "1.0")
    tally = drive(tmp_path, [engine.url], patience_s=20, attempts=1)
    assert ids(tmp_path) == expected(50)
    assert tally.given_up == {}


def test_work_of_an_engine_that_dies_goes_to_another(tmp_path: Path, standin: Callable[..., Any]) -> None:
    dying, living = standin("--latency", "0.02", "--die-after", "40"), standin("--latency", "0.02")
    tally = drive(tmp_path, [dying.url, living.url], count=300, attempts=3)
    assert ids(tmp_path) == expected(300)
    assert tally.given_up == {}
    assert dying.process.wait() == 1


def test_endpoints_join_and_leave(tmp_path: Path, standin: Callable[..., Any]) -> None:
    first, second = standin("--latency", "0.05"), standin("--latency", "0.05")
    one, two = Endpoint(first.url, "stand-in"), Endpoint(second.url, "stand-in")
    turn = 0

    def listed() -> list[Endpoint]:
        nonlocal turn
        turn += 1
        return [one] if turn < 2 else [two]

    with Journal(tmp_path, SCHEMA) as journal:
        with Progress("test", 4000) as progress:
            Driver([one], journal, to_row, DriveSettings(concurrency=64), listed=listed).drive(requests(4000), progress)
        assert len(journal.ids()) == 4000
    assert first.counts()["answered"] + second.counts()["answered"] == 4000
    assert second.counts()["answered"] > first.counts()["answered"] > 0


def test_a_providers_limit_a_minute_is_kept(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin()
    began = time.monotonic()
    drive(tmp_path, [engine.url], count=40, requests_per_minute=200)
    assert ids(tmp_path) == expected(40)
    # 20 at once (six seconds' worth), the others at 200 a minute: not before six seconds have gone.
    assert time.monotonic() - began > 5.5


def test_a_limit_of_tokens_a_minute_charges_what_came_and_not_what_was_guessed(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    engine = standin()
    began = time.monotonic()
    # An answer of the stand-in with its prompt is about 30 tokens. The first is charged as 2,000 till it has come; were
    # it left at that, or each of the others charged so, 200 of them would take half an hour.
    tally = drive(tmp_path, [engine.url], count=200, tokens_per_minute=12_000)
    assert ids(tmp_path) == expected(200)
    each = (tally.prompt_tokens + tally.completion_tokens) / 200
    assert 10 < each < 60
    # Six seconds' worth are there at once, the rest comes at 200 a second.
    assert time.monotonic() - began > (200 * each - 1_200) / 200 - 1.0 > 5


def test_an_engine_that_stands_still_is_named_and_its_work_goes_to_another(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    hung, living = standin("--faults", "hang=1.0"), standin("--latency", "0.02")
    still: set[str] = set()

    def trouble(found: Collection[Endpoint]) -> None:
        still.update(endpoint.url for endpoint in found)

    with Journal(tmp_path, SCHEMA) as journal:
        endpoints = [Endpoint(hung.url, "stand-in"), Endpoint(living.url, "stand-in")]
        settings = DriveSettings(concurrency=64, stream=True, stall_s=0.5, attempts=1)
        with Progress("test", 200) as progress:
            tally = Driver(endpoints, journal, to_row, settings, trouble).drive(requests(200), progress)
        assert len(journal.ids()) == 200
    assert tally.given_up == {}
    assert still == {hung.url}


def test_an_engine_that_fails_at_all_it_is_asked_costs_no_request_its_attempts(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    sick, well = standin("--status", "500"), standin("--latency", "0.01")
    tally = drive(tmp_path, [sick.url, well.url], count=400, attempts=3, patience_s=30)
    assert ids(tmp_path) == expected(400)
    assert tally.given_up == {}
    # It rests, longer each time, where it would else draw all the work there is: it answers so fast.
    assert sick.counts()["requests"] < 100


def test_an_engine_that_only_fails_ends_the_run_and_gives_nothing_up(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    engine = standin("--status", "502")
    with pytest.raises(UserError, match=r"no engine answers at .* for \d s \(HTTP 502 as told\): start it"):
        drive(tmp_path, [engine.url], attempts=2, patience_s=1.5)
    assert engine.counts()["requests"] < 100


def test_an_engine_that_turns_all_away_is_left_alone_and_does_not_draw_out_all_there_is(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    engine = standin("--status", "429")
    asked = 0

    def counted() -> Iterator[Request]:
        nonlocal asked
        for request in requests(100_000):
            asked += 1
            yield request

    with Journal(tmp_path, SCHEMA) as journal, Progress("test", 0) as progress:
        driver = Driver(
            [Endpoint(engine.url, "stand-in")], journal, to_row, DriveSettings(concurrency=8, patience_s=0.5)
        )
        with pytest.raises(UserError, match="HTTP 429"):
            driver.drive(counted(), progress)
    assert asked <= 3 * 8
    assert engine.counts()["requests"] < 150


def test_a_name_with_an_address_where_nobody_listens_is_reached_at_another(standin: Callable[..., Any]) -> None:
    engine = standin()

    async def asked() -> list[int]:
        connections = Connections()
        connections._addresses["somewhere", engine.port] = (time.monotonic() + 60, ["127.0.0.99", "127.0.0.1"])
        answers = [Answer() for _ in range(4)]  # at once: each over a connection of its own
        url = urlsplit(f"http://somewhere:{engine.port}/v1/models")
        await asyncio.gather(*(connections.post(url, {}, b"", answer) for answer in answers))
        connections.close()
        return [answer.status for answer in answers]

    assert asyncio.run(asked()) == [200] * 4


def test_an_engine_that_does_not_answer_is_told_once_and_when_it_answers_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pace = Pace(Endpoint("http://dead:1/v1", "m"), 8)
    pace.failed("refused")
    pace.failed("refused")
    pace.alive()
    # It flaps: not a line each time.
    pace.failed("refused")
    pace.alive()
    assert capsys.readouterr().err.splitlines() == [
        "http://dead:1/v1 does not answer (refused): it rests and is asked again",
        "http://dead:1/v1 answers again",
    ]
