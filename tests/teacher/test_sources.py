"""Parquet files with rows that cannot be read: these are set aside, the others are problems."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from teacher.sources import Unread, file_rows


def test_text_that_is_not_utf8_costs_its_own_row_alone(tmp_path: Path) -> None:
    raw = pa.array([b"one", b"tw\xffo", b"three"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"question": text, "n": [1, 2, 3]}), tmp_path / "a.parquet")
    rows = dict(file_rows(tmp_path / "a.parquet"))
    where = str(tmp_path / "a.parquet")
    assert rows[f"{where}: row 1"] == {"question": "one", "n": 1}
    assert rows[f"{where}: row 2"] == Unread("text that is not UTF-8", "tw\ufffdo")
    assert rows[f"{where}: row 3"] == {"question": "three", "n": 3}


def test_a_damaged_row_group_costs_its_own_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"question": [f"What is {number} plus one, all in all?" for number in range(3000)]})
    pq.write_table(table, path, row_group_size=1000, compression="zstd", use_dictionary=False)
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0)
    with path.open("r+b") as file:
        file.seek(middle.data_page_offset)
        file.write(b"\xff" * middle.total_compressed_size)
    rows = list(file_rows(path))
    bad = [(where, row) for where, row in rows if isinstance(row, Unread)]
    assert len(rows) == 2001
    assert [where for where, _ in bad] == [f"{path}: rows 1001 to 2000"]
    assert bad[0][1].why.startswith("damaged Parquet (")  # type: ignore[union-attr]
