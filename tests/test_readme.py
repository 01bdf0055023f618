"""The README says what is so: its table is the kept result, its files and commands exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipeline.cli import parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_a_table_is_the_kept_result() -> None:
    found = re.findall(r"<!-- benchmarks/results/(\w+).txt -->\n```text\n(.*?)```\n<!-- end -->", README, re.DOTALL)
    assert "demo" in dict(found)
    for name, table in found:
        assert table == (ROOT / f"benchmarks/results/{name}.txt").read_text()


def test_the_kept_results_have_the_layout_that_others_read() -> None:
    keys = {"figure", "value", "unit", "peer", "peer_value", "ratio", "goal", "command", "machine"}
    for path in (ROOT / "benchmarks/results").glob("*.json"):
        for row in json.loads(path.read_text()):
            assert set(row) == keys, path


def test_the_files_it_names_exist() -> None:
    tree = README.split("## The files")[1].split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        names = re.findall(r"[\w.]+(?:\.py|\.sh|/)|Makefile", line[:24])
        assert names or line.startswith(" "), line
        for name in names:
            path = ROOT / name if not line.startswith(" ") else ROOT / folder / name
            assert path.exists(), path
        if not line.startswith(" ") and names[0].endswith("/"):
            folder = names[0]


def test_the_commands_it_names_exist() -> None:
    known = set(next(a for a in parser()._actions if a.dest == "command").choices or ())
    assert {"run", "filter", "status", "show", "serve"} <= set(re.findall(r"retort (\w+)", README)) & known
