"""The driver against a stand-in engine that misbehaves: exactly what was asked for comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.driver import Driver
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.progress import Progress
from pipeline.tally import DriveSettings
from tests.pipeline.driving import SCHEMA, drive, expected, ids, requests, to_row


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off as it is done, in a twentieth of the time."""
    monkeypatch.setattr("pipeline.driver.FIRST_PAUSE", 0.025)


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


def test_a_refusal_ends_the_asking_and_keeps_what_is_on_its_way(
    tmp_path: Path, standin: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    slow, refusing = standin("--latency", "1.5"), standin("--status", "400", "--latency", "0")
    with pytest.raises(UserError, match="refuses the request"):
        drive(tmp_path, [slow.url, refusing.url], count=500)
    held = ids(tmp_path)
    assert 0 < len(held) == slow.counts()["answered"] == slow.counts()["requests"] < 500
    assert "nothing more is asked, " in capsys.readouterr().err


def test_an_account_that_is_empty_is_told_as_such(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--status", "402")
    with pytest.raises(UserError, match=r"wants to be paid first \(HTTP 402: as told\): top up the account"):
        drive(tmp_path, [engine.url])


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


@pytest.mark.parametrize("fault", ["stall=0.2", "comments=0.2", "broken=0.4", "error=0.4", "500=0.4", "close=0.4"])
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


def test_an_answer_that_was_aborted_is_not_whole(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--faults", "abort=0.3")
    tally = drive(tmp_path, [engine.url], attempts=30)
    assert ids(tmp_path) == expected(50)
    assert tally.retries == engine.counts()["faults"] > 0


def test_a_refusal_that_is_to_be_kept_ends_no_run(tmp_path: Path, standin: Callable[..., Any]) -> None:
    engine = standin("--status", "400", "--says", "maximum context length is 9 tokens")

    def kept(request: Request) -> Completion:
        return Completion("so far", None, "length", 1, 2, "", 1, 0.0, 0.0)

    with Journal(tmp_path, SCHEMA) as journal, Progress("test", 0) as progress:
        driver = Driver([Endpoint(engine.url, "stand-in")], journal, to_row, DriveSettings(), refused=kept)
        tally = driver.drive(requests(5), progress)
        journal.roll()
    assert tally.finished == 5
    assert [row["text"] for row in read_rows(tmp_path)] == ["so far"] * 5


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
