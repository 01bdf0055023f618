"""Fifty one-step word problems of Retort's own, made from five templates: for demos and machines without a network.

Rows are laid out as GSM8K's, {"question": ..., "answer": "... #### 18"}, and lie beside this module; a file
of one's own in that layout may stand in for them. They are easy: no score here says anything of GSM8K.
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks import gsm8k
from eval.benchmarks.jsonl import read_jsonl
from pipeline.records import Problem

NAME = "word_problems"
DOMAIN = "math"
LICENSE = "Apache-2.0"
VERIFIER = "math"


def problems(path: Path | None) -> list[Problem]:
    """Return the questions in the order of their file.

    Raises:
        UserError: the file cannot be read, or a row is not of the layout (file:line).
    """
    rows = read_jsonl(path or Path(__file__).with_suffix(".jsonl"), NAME)
    return [gsm8k.problem(row, where, source=NAME, license=LICENSE) for where, row in rows]
