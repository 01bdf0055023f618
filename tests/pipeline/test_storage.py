"""Nothing that came back is lost: journal, parts and their faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.files import disk_errors, locked, write_whole
from pipeline.journal import Journal
from pipeline.parts import held_of, part_paths, read_rows, write_parts

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


def row(number: int, text: str = "x") -> dict[str, Any]:
    return {"id": f"{number:06d}", "text": text}


def test_the_first_durable_write_of_an_id_wins(tmp_path: Path) -> None:
    with Journal(tmp_path, SCHEMA) as journal:
        journal.append([row(1, "first")])
        journal.append([row(1, "second"), row(2)])
        journal.roll()
        # After a roll the id is in a part: what comes again is left out of the next part.
        journal.append([row(1, "third"), row(3)])
        journal.roll()
    assert {r["id"]: r["text"] for r in read_rows(tmp_path)} == {"000001": "first", "000002": "x", "000003": "x"}
    assert sum(1 for _ in read_rows(tmp_path)) == 3


def test_a_crash_between_part_and_journal_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path, SCHEMA) as journal:
        journal.append([row(n) for n in range(5)])
        # The part is written, and then the process dies before the journal's rows are deleted.
        real = journal._db
        journal._db = _FailsOnDelete(real)  # type: ignore[assignment]
        with pytest.raises(RuntimeError, match="died"):
            journal.roll()
        journal._db = real
    with Journal(tmp_path, SCHEMA) as journal:
        assert len(journal.ids()) == 5
        journal.roll()
    assert sorted(r["id"] for r in read_rows(tmp_path)) == [f"{n:06d}" for n in range(5)]
    assert len(part_paths(tmp_path)) == 1


class _FailsOnDelete:
    def __init__(self, database: Any) -> None:
        self.database = database

    def execute(self, statement: str, *rest: Any) -> Any:
        if statement.startswith("DELETE"):
            raise RuntimeError("died")
        return self.database.execute(statement, *rest)


WRITER = """
import sys
from pathlib import Path
import pyarrow as pa
from pipeline.journal import Journal
schema = pa.schema([("id", pa.string()), ("text", pa.string())])
with Journal(Path(sys.argv[1]), schema, roll_bytes=200_000) as journal:
    for n in range(10**9):
        journal.append([{"id": f"{n:09d}", "text": "y" * 500}])
        print(n, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.3, 0.7, 1.3])
def test_kill_9_loses_no_record_that_counted(tmp_path: Path, after_s: float) -> None:
    said = tmp_path / "said"
    with open(said, "w") as output:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "pool")], stdout=output, cwd=ROOT)
        while not said.read_text():
            time.sleep(0.02)
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    counted = [int(line) for line in said.read_text().split("\n")[:-1]]
    assert len(counted) > 100
    with Journal(tmp_path / "pool", SCHEMA) as journal:
        held = journal.ids()
        journal.roll()
    assert {f"{n:09d}" for n in counted} <= held
    ids = [r["id"] for r in read_rows(tmp_path / "pool")]
    assert len(ids) == len(set(ids))
    assert set(ids) == held


def test_a_full_disk_stops_the_journal_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path, SCHEMA) as journal:
        journal.append([row(1)])
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count={pages + 2}")  # SQLite's own "disk is full"
        with pytest.raises(UserError) as told:
            for number in range(2, 500):
                journal.append([row(number, "z" * 5000)])
        line = told.value.line()
        assert "no disk space left while writing" in line
        assert "everything finished before is safe" in line
        assert "free some space and run the same command again" in line
        assert "000001" in journal.ids()


def test_a_full_disk_stops_a_part_in_one_line() -> None:
    with (
        pytest.raises(UserError, match="no disk space left while writing .*/dev/full.*free some space"),
        disk_errors(Path("/dev/full")),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100_000)


def test_a_part_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    def rows() -> Any:
        yield from (row(n) for n in range(5000))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_parts(tmp_path, rows(), SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_which_of_some_ids_the_parts_hold(tmp_path: Path) -> None:
    assert held_of(tmp_path, ["000001"]) == set()
    with Journal(tmp_path, SCHEMA) as journal:
        for numbers in (range(3), range(3, 6)):
            journal.append([row(number) for number in numbers])
            journal.roll()
    assert len(part_paths(tmp_path)) == 2
    assert held_of(tmp_path, ["000001", "000004", "000009"]) == {"000001", "000004"}
    assert held_of(tmp_path, []) == set()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert write_parts(tmp_path / name, (row(n) for n in range(4001)), SCHEMA) == 4001
    (first,), (second,) = part_paths(tmp_path / "a"), part_paths(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_no_rows_leave_a_part_that_tells_the_schema(tmp_path: Path) -> None:
    assert write_parts(tmp_path, [], SCHEMA) == 0
    assert len(part_paths(tmp_path)) == 1
    assert list(read_rows(tmp_path)) == []


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot read the part .*part-00000.parquet"):
        list(read_rows(tmp_path))


def test_a_held_folder_names_its_holder(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\nfrom pipeline.files import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UserError, match=f"in use by process {process.pid}: wait for it"), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path):
        pass  # the lock died with its holder


def test_lone_surrogates_are_stored(tmp_path: Path) -> None:
    with Journal(tmp_path, SCHEMA) as journal:
        journal.append([row(1, "broken \ud800 text é")])
        journal.roll()
    assert [r["text"] for r in read_rows(tmp_path)] == ["broken ? text é"]


def test_write_whole_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_whole(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no disk space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
