"""The stage `filter`: correct and readable traces are accepted; all others are kept with their reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from filtering.rules import first_reason
from filtering.settings import FilterSettings
from pipeline.manifest import Counts
from pipeline.parts import read_rows, write_parts
from pipeline.records import Problem, State, Trace
from pipeline.stages import Job, Outcome

ACCEPTED = pa.schema([*Trace.SCHEMA, ("state", pa.string()), ("decided_by", pa.string())])
REJECTED = pa.schema([*ACCEPTED, ("reason", pa.string()), ("spans", pa.string())])


def run(job: Job) -> Outcome:
    """Leave accepted/ and rejected/. Reasons: wrong, undecided, problem_not_in_run, or the rule's own.

    Reads the pool once for each side, so that memory holds verdicts and problems but no traces.
    """
    rules = job.recipe[FilterSettings].rules
    problems = {row["id"]: Problem.from_dict(row) for row in read_rows(job.folder("problems"))}
    verdicts = {
        row["trace_id"]: (row["state"], row["decided_by"])
        for row in read_rows(job.folder("verdicts"), columns=["trace_id", "state", "decided_by"])
    }
    reasons: dict[str, tuple[str, str]] = {}

    def judged() -> Iterator[dict[str, Any]]:
        for row in read_rows(job.folder("traces")):
            state, decided_by = verdicts.get(row["id"], (None, None))
            yield {**row, "state": state, "decided_by": decided_by}

    def accepted() -> Iterator[dict[str, Any]]:
        for row in judged():
            problem = problems.get(row["problem_id"])
            if problem is None:
                reasons[row["id"]] = ("problem_not_in_run", "[]")
            elif row["state"] != State.CORRECT:
                reasons[row["id"]] = (row["state"] or "not_verified", "[]")
            elif found := first_reason(rules, problem, Trace.from_dict(row)):
                reasons[row["id"]] = (found.reason, json.dumps(found.spans))
            else:
                yield row

    def rejected() -> Iterator[dict[str, Any]]:
        for row in judged():
            if row["id"] in reasons:
                reason, spans = reasons[row["id"]]
                yield {**row, "reason": reason, "spans": spans}

    kept = write_parts(job.out, accepted(), ACCEPTED)
    dropped = Counter(reason for reason, _ in reasons.values())
    write_parts(job.run / f"{job.stage.folders[1]}.building", rejected(), REJECTED)
    return Outcome(Counts(kept + sum(dropped.values()), kept, dict(dropped)))
