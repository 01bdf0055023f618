"""GSM8K: 1,319 grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168; MIT licence).

Questions: `openai/gsm8k` on the Hub, config `main`, split `test`; or a JSONL file of the same rows,
{"question": ..., "answer": "... #### 18"}. The reference is what follows the last `####`, without
thousands' commas. The prompt is the question alone; what is put around it ([eval.sampling] prompt)
is the recipe's. Answers are graded by the verifier "math", the one that accepts traces.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eval.benchmarks.jsonl import read_jsonl
from pipeline.errors import UserError
from pipeline.records import Problem
from teacher.hub import hub_rows

NAME = "gsm8k"
DOMAIN = "math"
LICENSE = "MIT"
VERIFIER = "math"
SOURCE = "openai/gsm8k"

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def problems(path: Path | None) -> list[Problem]:
    """Return the questions in the order of their source.

    Raises:
        UserError: the source cannot be read or is empty, or a row is not of GSM8K (file:line).
    """
    way = f"give the path of a local JSONL file as 'path' of eval.benchmarks '{NAME}'"
    rows = hub_rows(SOURCE, "main", "test", way) if path is None else read_jsonl(path, NAME)
    return [problem(row, where) for where, row in rows]


def reference(answer: str) -> str | None:
    """Return the number after the last `####`, without commas; None where there is no number."""
    _, mark, tail = answer.rpartition("####")
    found = tail.strip().replace(",", "")
    return found if mark and _NUMBER.fullmatch(found) else None


def problem(row: dict[str, Any], where: str, source: str = SOURCE, license: str = LICENSE) -> Problem:
    """Return the problem of a row laid out as GSM8K's.

    Raises:
        UserError: the row is not of that layout (`where` is named).
    """
    way = 'each row is {"question": ..., "answer": "... #### 18"}; correct or remove that one'
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: 'question' is missing or empty", way)
    if not isinstance(answer, str):
        raise UserError(f"{where}: 'answer' is missing", way)
    found = reference(answer)
    if found is None:
        raise UserError(f"{where}: no number after '####' in 'answer'", way)
    return Problem.of(
        [{"role": "user", "content": question.strip()}],
        domain=DOMAIN,
        source=source,
        license=license,
        reference=found,
        verifier=VERIFIER,
    )
