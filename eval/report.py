"""The stage `report`: one page that says what a run did, opened from disk without a network."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from eval import summary
from eval.costs import costs, forecast
from eval.tables import (
    FUNNEL_HEAD,
    SCORE_HEAD,
    arms_cells,
    arms_head,
    arms_lines,
    arms_table,
    difference_line,
    funnel_cells,
    funnel_table,
    score_cells,
    score_table,
)
from pipeline.files import write_whole
from pipeline.manifest import Counts
from pipeline.recipe import Recipe
from pipeline.stages import Job, Outcome

TEMPLATES = Path(__file__).parent / "templates"


def run(job: Job) -> Outcome:
    """Write report.html. Counts are parts of the report: those filled, and those not run.

    Raises:
        UserError: a file of the run cannot be read.
    """
    facts = gather(job.recipe, job.run)
    parts = ("verdicts", "reasons", "tokens", "scores", "comparison", "loss_svg", "lengths_svg", "traces")
    filled = sum(bool(facts[part]) for part in parts) + sum(row["ran"] for row in facts["funnel"])
    asked = len(parts) + len(facts["funnel"])
    write_whole(job.out / "report.html", render(facts))
    return Outcome(Counts(asked, filled, {"not_run": asked - filled} if filled < asked else {}))


def gather(recipe: Recipe, run: Path) -> dict[str, Any]:
    """Return all that the page shows; what the run has not made is None or empty, never invented."""
    from eval.charts import length_histogram, loss_curve

    scores, comparison = _scores(run)
    spent = costs(run)
    losses = summary.losses(run)
    sides = {side: summary.lengths(run / side) for side in ("accepted", "rejected")}
    traces = {side: summary.some_traces(run / side) for side in ("accepted", "rejected")}
    asked = {trace["problem_id"] for shown in traces.values() for trace in shown}
    return {
        "recipe": _recipe_rows(recipe),
        "name": recipe.name,
        "description": recipe.description,
        "funnel": summary.funnel(run),
        "verdicts": summary.verdict_counts(run),
        "reasons": summary.rejection_reasons(run),
        "tokens": summary.token_counts(sides),
        "costs": spent,
        "forecast": forecast(run, spent),
        "scores": scores,
        "comparison": comparison,
        "arms": summary.read_json(run / "eval" / "arms.json"),
        "loss_svg": loss_curve(losses) if losses else None,
        "lengths_svg": length_histogram(*(side or () for side in sides.values())) if any(sides.values()) else None,
        "traces": {side: shown for side, shown in traces.items() if shown},
        "questions": summary.questions(run, asked),
        "versions": summary.versions(run),
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        },
    }


def render(facts: dict[str, Any]) -> str:
    """Return the page for what `gather` found; every text of the run is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Only the charts are markup: matplotlib made them, from numbers.
    charts = {key: Markup(facts[key]) if facts[key] else None for key in ("loss_svg", "lengths_svg")}
    page = environment.get_template("report.html.jinja")
    return page.render(
        **{**facts, **charts},
        funnel_head=FUNNEL_HEAD,
        funnel_cells=funnel_cells,
        score_head=SCORE_HEAD,
        score_cells=score_cells,
        difference_line=difference_line,
        arms_head=arms_head,
        arms_cells=arms_cells,
        arms_lines=arms_lines,
    )


def result_table(run: Path) -> str:
    """Return what a finished run amounts to, as plain text: the arms compared where there are some, and the funnel
    with its seconds and memory; else the funnel and the scores."""
    if arms := summary.read_json(run / "eval" / "arms.json"):
        return "\n".join([arms_table(arms), "", funnel_table(summary.funnel(run))])
    scores, comparison = _scores(run)
    lines = [funnel_table(summary.funnel(run)), ""]
    lines.append(score_table(scores) if scores else "scores: not run")
    lines += [difference_line(row, alone=len(comparison) == 1) for row in comparison]
    return "\n".join(lines)


def _scores(run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    folder = run / "eval"
    return summary.read_json(folder / "scores.json") or [], summary.read_json(folder / "comparison.json") or []


def _recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """Return the resolved recipe as (key, value) rows, tables opened one level."""
    rows = []
    for key, value in recipe.to_dict().items():
        if key in ("name", "description"):
            continue
        if isinstance(value, dict):
            said = {inner: found for inner, found in value.items() if found not in (None, "", [], {})}
            rows += [(f"{key}.{inner}", _short(found)) for inner, found in said.items()]
        else:
            rows.append((key, _short(value)))
    return rows


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:297] + "..."
