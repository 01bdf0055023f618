"""Looking at a run: how far it is, and one trace whole."""

from __future__ import annotations

import contextlib
import textwrap
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.parts import count_rows, part_paths, read_rows
from pipeline.stages import STAGES, reads_other


def _check(run: Path) -> None:
    if not (run / "recipe.json").exists():
        known = sorted(str(found.parent) for found in Path("runs").glob("*/recipe.json"))
        raise UserError(
            f"no run at {run}",
            "give a run's folder",
            *([f"one of {', '.join(known)}"] if known else ["start one with 'retort run RECIPE'"]),
        )


def status(run: Path) -> str:
    """Return a table of the run's stages: what is complete, counts, seconds.

    Raises:
        UserError: there is no run.
    """
    _check(run)
    lines = [f"{'stage':10} {'state':12} {'in':>8} {'kept':>8} {'seconds':>8}  dropped"]
    for stage in STAGES.values():
        manifest = read_manifest(run / stage.folder)
        if manifest is None:
            begun = (run / f"{stage.folder}.building").exists() or (run / stage.folder).exists()
            held = ""
            if stage.name == "traces" and begun:
                held = f"  {pool_size(run / 'traces')} traces are durable"
            lines.append(f"{stage.name:10} {'begun' if begun else '-':12}{held}")
            continue
        stale = reads_other(stage, manifest, run)
        dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
        lines.append(
            f"{stage.name:10} {'input changed' if stale else 'complete':12} {manifest.entered:>8} {manifest.kept:>8} "
            f"{manifest.seconds:>8.0f}  {dropped}".rstrip()
        )
    return "\n".join(lines)


def pool_size(pool: Path) -> int:
    """Return how many records a pool holds, in parts and in its journal, without taking its lock."""
    import sqlite3

    rows = count_rows(pool)
    journal = pool / "journal.sqlite"
    if journal.exists():
        # A journal that was made this moment holds no table yet.
        missing = contextlib.suppress(sqlite3.OperationalError)
        with missing, sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
            rows += int(database.execute("SELECT count(*) FROM rows").fetchone()[0])
    return rows


def listed(run: Path, count: int = 20) -> str:
    """Return the first traces of a run, a line each: id, state, why it was dropped, how its problem begins.

    Raises:
        UserError: there is no run.
    """
    _check(run)
    states = {row["trace_id"]: row["state"] for row in read_rows(run / "verdicts", ["trace_id", "state"])}
    reasons = {row["id"]: row["reason"] for row in read_rows(run / "rejected", ["id", "reason"])}
    asked = {row["id"]: row["messages"][-1]["content"] for row in read_rows(run / "problems", ["id", "messages"])}
    lines = []
    for row in islice(read_rows(run / "traces", ["id", "problem_id"]), count):
        state = states.get(row["id"], "not verified")
        reason = reasons.get(row["id"])
        fate = state if reason in (None, state) else f"{state}, {reason}"
        question = " ".join(asked.get(row["problem_id"], "").split())
        lines.append(f"{row['id'][:16]}  {fate:<28}  {question[:60]}")
    return "\n".join(lines) or f"no trace in {run} yet"


def show(run: Path, prefix: str) -> str:
    """Return a trace as text: problem, settings, thought, answer, verdict, and why it was kept or dropped.

    Raises:
        UserError: there is no run, or no trace or several whose id begins so.
    """
    _check(run)
    found = {id for id in (row["id"] for row in read_rows(run / "traces", ["id"])) if id.startswith(prefix)}
    if len(found) != 1:
        what = (
            f"{len(found)} traces in {run} have ids that begin with {prefix}"
            if found
            else f"no trace {prefix} in {run}"
        )
        raise UserError(
            what, "give more of the id" if found else f"take an id from 'retort show {run}', which lists some of them"
        )
    trace = _row(run / "traces", "id", found.pop())
    assert trace is not None
    problem = _row(run / "problems", "id", trace["problem_id"])
    verdict = _row(run / "verdicts", "trace_id", trace["id"])
    rejected = _row(run / "rejected", "id", trace["id"])
    accepted = _row(run / "accepted", "id", trace["id"])
    fate = (
        "accepted"
        if accepted
        else f"rejected: {rejected['reason']} {rejected['spans']}"
        if rejected
        else "not filtered yet"
    )
    parts = [
        f"trace {trace['id']} (sample {trace['sample']})",
        f"teacher {trace['teacher']}, temperature {trace['temperature']}, top-p {trace['top_p']}, "
        f"{trace['completion_tokens']} tokens, finished by {trace['finish_reason']}, {trace['seconds']:.1f} s",
        _block(
            "problem",
            "\n".join(f"[{m['role']}] {m['content']}" for m in problem["messages"]) if problem else "not in the run",
        ),
        *([_block("draft", problem["draft"])] if problem and problem.get("draft") else []),
        _block("reference", str(problem["reference"]) if problem else ""),
        _block("thought", trace["thought"] if trace["thought"] is not None else "(none)"),
        _block("answer", trace["answer"] if trace["answer"] is not None else "(none: the thought never closed)"),
        f"verdict: {verdict['state']} by {verdict['decided_by']}: {verdict['why']}" if verdict else "verdict: none yet",
        f"fate: {fate}",
    ]
    return "\n".join(parts)


def _block(name: str, text: str) -> str:
    return f"{name}:\n{textwrap.indent(text, '  ')}"


def _row(folder: Path, column: str, value: str) -> dict[str, Any] | None:
    for path in part_paths(folder):
        rows: list[dict[str, Any]] = pq.read_table(path, filters=[(column, "=", value)]).to_pylist()
        if rows:
            return rows[0]
    return None
