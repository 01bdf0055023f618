"""What a run's traces cost, where their tokens went, and how that compares with what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.summary import read_json
from pipeline.manifest import read_manifest
from pipeline.parts import part_paths, read_rows
from pipeline.records import State
from teacher.cost import USES, Spent, uses
from teacher.meter import SPENT
from teacher.plan import FILE

COLUMNS = ["id", "finish_reason", "prompt_tokens", "completion_tokens", "cost"]


def costs(run: Path) -> dict[str, Any] | None:
    """Return where traces and tokens went, and what an accepted trace cost; None where nothing was filtered.

    `dollars` are None where nothing has a price; of rented GPUs they are those of the hours of sampling, over all its
    starts. Retries, and tokens of streams that broke, are those of the stage's last start.
    """
    if not part_paths(run / "verdicts") or not part_paths(run / "accepted"):
        return None
    rejected = {row["id"]: row["reason"] for row in read_rows(run / "rejected", ["id", "reason"])}
    states: dict[str, tuple[str, str | None]] = {
        row["trace_id"]: (row["state"], rejected.get(row["trace_id"]) if row["state"] == State.CORRECT else None)
        for row in read_rows(run / "verdicts", ["trace_id", "state"])
    }
    totals = {"prompt": 0, "completion": 0, "dollars": 0.0, "priced": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for row in read_rows(run / "traces", COLUMNS):
            if row["id"] in states:
                totals["prompt"] += row["prompt_tokens"] or 0
                totals["completion"] += row["completion_tokens"] or 0
                totals["dollars"] += row.get("cost") or 0.0
                totals["priced"] += row.get("cost") is not None
                yield row

    went = uses(rows(), states)
    accepted = went["traces"]["accepted"]
    manifest = read_manifest(run / "traces")
    spent = Spent.kept_in(run / "traces" / SPENT)
    # Rent is in no trace's own cost.
    rented = spent.gpu_hours and spent.dollars is not None
    dollars = totals["dollars"] if totals["priced"] and not rented else spent.dollars
    return {
        "uses": [
            {
                "use": use,
                "traces": went["traces"][use],
                "tokens": went["tokens"][use],
                "share": went["tokens"][use] / max(1, totals["completion"]),
            }
            for use in USES
            if went["traces"][use]
        ],
        "accepted": accepted,
        "tokens": totals["prompt"] + totals["completion"],
        "completion_tokens": totals["completion"],
        "tokens_each": (totals["prompt"] + totals["completion"]) / accepted if accepted else None,
        "dollars": dollars,
        "dollars_each": dollars / accepted if accepted and dollars is not None else None,
        "gpu_hours": spent.gpu_hours or None,
        "wasted": manifest.facts.get("tokens_wasted") if manifest else None,
        "retries": manifest.facts.get("retries") if manifest else None,
    }


def forecast(run: Path, spent: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return a row for each figure of RUN/plan.json that the run has a fact for: predicted, its range, fact."""
    planned = read_json(run / FILE)
    dataset = read_manifest(run / "dataset")
    if not planned or spent is None or dataset is None:
        return []
    covered = {row["problem_id"] for row in read_rows(run / "accepted", ["problem_id"])}
    facts = {
        "rows": dataset.kept,
        "problems covered": len(covered),
        "completion tokens": spent["completion_tokens"],
        "dollars": spent["dollars"],
        "GPU-hours": spent["gpu_hours"],
        "tokens a row": spent["tokens"] / dataset.kept if dataset.kept else None,
    }
    return [
        {"name": name, **planned["predicted"][name], "fact": fact}
        for name, fact in facts.items()
        if fact is not None and name in planned["predicted"]
    ]
