"""The driver against a stand-in engine that misbehaves: exactly what was asked for comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from pipeline.driver import Driver
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.http import Answer, Connections
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.progress import Progress
from pipeline.tally import DriveSettings, Tally

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off as it is done, in a twentieth of the time."""
    monkeypatch.setattr("pipeline.driver.FIRST_PAUSE", 0.025)


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

    def trouble(still: Collection[Endpoint]) -> str | None:
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


STREAMED = {"stream": True, "stall_s": 0.6, "attempts": 30}


@pytest.mark.parametrize("fault", ["stall=0.2", "broken=0.4", "error=0.4", "500=0.4", "close=0.4"])
def test_streams_that_fail_in_the_middle_are_asked_again(
    tmp_path: Path, standin: Callable[..., Any], fault: str
) -> None:
    engine = standin("--faults", fault)
    tally = drive(tmp_path, [engine.url], **STREAMED)
    assert ids(tmp_path) == expected(50)
    assert tally.retries == engine.counts()["faults"] > 0
    texts = {row["id"]: row["text"] for row in read_rows(tmp_path)}
    assert texts["00007"] == "<think>\nI add the numbers: 7 + 1 = 8.\n</think>\n\nThe answer is \\boxed{8}."
    assert tally.completion_tokens == sum(len(text) // 4 for text in texts.values())


def test_a_slow_stream_is_no_stall(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--chunk-latency", "0.4")
    tally = drive(tmp_path, [engine.url], count=8, **STREAMED)
    assert ids(tmp_path) == expected(8)
    assert tally.retries == 0


def test_a_stream_that_waits_in_the_engines_queue_is_no_stall(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--slots", "1", "--latency", "0.3")
    tally = drive(tmp_path, [engine.url], count=8, concurrency=8, **STREAMED)
    assert ids(tmp_path) == expected(8)
    assert tally.retries == 0


def test_a_loop_is_cut_and_kept_as_such(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--loop", "--chunk-latency", "0.005")
    rows: dict[str, Completion] = {}

    def keep(request: Request, completion: Completion) -> dict[str, Any]:
        rows[request.id] = completion
        return to_row(request, completion)

    asked = [Request("a", [{"role": "user", "content": "What is 1 plus 1?"}], {"max_tokens": 90_000})]
    with Journal(tmp_path, SCHEMA) as journal, Progress("test", 1) as progress:
        driver = Driver(
            [Endpoint(engine.url, "stand-in")],
            journal,
            keep,
            DriveSettings(stream=True),
            loops=lambda text: text.count("round and round") > 20,
        )
        tally = driver.drive(asked, progress)
    assert rows["a"].finish_reason == "loop"
    assert rows["a"].text.startswith("<think>\nFirst I look at it. and round")
    assert 20 < rows["a"].text.count("round and round") < 9000
    assert not rows["a"].tokens_counted
    assert rows["a"].completion_tokens == -(-len(rows["a"].text) // 4)
    assert (tally.cut, tally.saved) == (1, 90_000 - rows["a"].completion_tokens)


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


def test_nothing_to_ask_for_the_moment_is_waited_for(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--latency", "0.02")
    came: list[str] = []

    def keep(request: Request, completion: Completion) -> dict[str, Any]:
        came.append(request.id)
        return to_row(request, completion)

    def chained() -> Iterator[Request | None]:
        for number, request in enumerate(requests(6)):
            while len(came) < number:
                yield None
            yield request

    with Journal(tmp_path, SCHEMA) as journal, Progress("test", 6) as progress:
        Driver([Endpoint(engine.url, "stand-in")], journal, keep, DriveSettings()).drive(chained(), progress)
    assert came == expected(6)
    assert engine.counts()["most_at_once"] == 1


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


def test_rows_that_a_signal_kept_from_the_journal_are_written_in_the_end(
    tmp_path: Path, standin: Callable[..., Any]
) -> None:
    engine = standin()

    class Struck(Journal):
        blows = 1

        def append(self, rows: Any) -> None:
            rows = list(rows)
            if self.blows:
                self.blows = 0
                raise KeyboardInterrupt
            super().append(rows)

    with Struck(tmp_path, SCHEMA) as journal, Progress("test", 0) as progress:
        driver = Driver([Endpoint(engine.url, "stand-in")], journal, to_row, DriveSettings(concurrency=16))
        with pytest.raises(KeyboardInterrupt):
            driver.drive(requests(50), progress)
        assert len(journal.ids()) == driver.tally.finished == driver.tally.came > 0


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


def test_an_answer_that_was_aborted_is_not_whole(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--faults", "abort=0.3")
    tally = drive(tmp_path, [engine.url], attempts=30)
    assert ids(tmp_path) == expected(50)
    assert tally.retries == engine.counts()["faults"] > 0


def test_a_refusal_that_is_to_be_kept_ends_no_run(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--status", "400")

    def kept(request: Request) -> Completion:
        return Completion("so far", None, "length", 1, 2, "", 1, 0.0, 0.0)

    with Journal(tmp_path, SCHEMA) as journal, Progress("test", 0) as progress:
        driver = Driver([Endpoint(engine.url, "stand-in")], journal, to_row, DriveSettings(), refused=kept)
        tally = driver.drive(requests(5), progress)
        journal.roll()
    assert tally.finished == 5
    assert [row["text"] for row in read_rows(tmp_path)] == ["so far"] * 5
