"""Answers that a source brings along: a row becomes a problem and a finished trace, which is never asked for again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.records import Problem, Trace, trace_id
from teacher.source_settings import SourceSettings
from teacher.sources import column
from teacher.thought import split

IMPORTED = "imported"
"""The folder beside the problems, and what stands for the teacher in the traces' identities."""


def parted(question: Any, row: dict[str, Any], settings: SourceSettings) -> tuple[Any, str | None]:
    """Return the question and the finished answer of a row, None where the source brings none.

    Raises:
        ValueError: the source brings answers, and this row has none.
    """
    if not settings.response:
        return question, None
    if settings.response == settings.question:
        last = question[-1] if isinstance(question, list) and question else None
        if not isinstance(last, dict) or last.get("role") != "assistant" or not str(last.get("content") or "").strip():
            raise ValueError(f"no assistant's turn at the end of column '{settings.question}'")
        question, said = question[:-1], str(last["content"])
    else:
        said = column(row, settings.response)
    if not isinstance(said, str) or not said.strip():
        raise ValueError(f"no answer in column '{settings.response}'")
    try:
        said.encode()
    except UnicodeEncodeError:
        raise ValueError("broken Unicode (a lone surrogate)") from None
    return question, said


def finished_trace(problem: Problem, said: str) -> Trace:
    """Return the trace of an answer that was there before; how it was sampled is not known."""
    thought, answer = split(said, None)
    teacher = f"{IMPORTED}:{problem.source}"
    how: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": -1}
    return Trace(
        id=trace_id(problem.id, 0, teacher=teacher, revision="", template=IMPORTED, **how),
        problem_id=problem.id,
        sample=0,
        thought=thought,
        answer=answer,
        text=said,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
        teacher=teacher,
        revision="",
        template=IMPORTED,
        max_tokens=0,
        seed=None,
        endpoint="",
        attempts=0,
        started=0.0,
        seconds=0.0,
        **how,
    )


def adopt(problems: Path, pool: Path) -> set[str]:
    """Put the finished traces that lie beside the problems into the pool; return the ids of their problems."""
    rows: Iterable[dict[str, Any]] = list(read_rows(problems / IMPORTED))
    if not rows:
        return set()
    with Journal(pool, Trace.SCHEMA) as journal:
        held = journal.ids()
        journal.append(row for row in rows if row["id"] not in held)
        journal.roll()
    return {row["problem_id"] for row in rows}
