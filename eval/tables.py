"""Plain-text tables and sentences, for the terminal and the report alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return lines of aligned columns: the first `left` to the left, the others to the right."""
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(placed).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def percent(share: float | None) -> str:
    """Return a share in 0..1 as per cent with one decimal; `n/a` of None."""
    return "n/a" if share is None else f"{100 * share:.1f}"


def with_error(share: float | None, se: float | None) -> str:
    """Return `61.3 ± 1.3` in per cent; the error is `n/a` where it is undefined."""
    return "n/a" if share is None else f"{percent(share)} ± {percent(se)}"


SCORE_HEAD = (
    "role",
    "task",
    "k",
    "questions",
    "pass@1 % ± se",
    "cons@k %",
    "no answer %",
    "truncated %",
    "undecided",
    "mean tokens",
)


def score_cells(row: Row) -> list[str]:
    """Return the cells of one row of scores.json under SCORE_HEAD."""
    tokens = row["mean_tokens"]
    return [
        row["role"],
        row["task"],
        str(row["k"]),
        str(row["questions"]),
        with_error(row["pass_at_1"], row["se"]),
        percent(row["cons_at_k"]),
        percent(row["no_answer"]),
        percent(row["truncated"]),
        str(row["undecided_samples"]),
        "n/a" if tokens is None else f"{tokens:.0f}",
    ]


def score_table(rows: Sequence[Row]) -> str:
    """Return the table of scores as text."""
    return text_table(SCORE_HEAD, [score_cells(row) for row in rows], left=2)


def difference_line(row: Row, alone: bool = True) -> str:
    """Return `student - base: +x.x ± y.y points (within noise)` of a row of comparison.json.

    Args:
        alone: whether it is the only task; otherwise the task is named.
    """
    difference, se = row["difference"], row["se"]
    value = "n/a" if difference is None else f"{100 * difference:+.1f}"
    task = "" if alone else f" on {row['task']}"
    return f"{row['model']} - {row['against']}{task}: {value} ± {percent(se)} points ({row['words']})"


def arms_head(found: Row) -> list[str]:
    """Return the columns of the table of arms: its reasoning families, their mean, then the general ones."""
    reasoning = [family["name"] for family in found["families"] if family["reasoning"]]
    general = [f"general: {family['name']}" for family in found["families"] if not family["reasoning"]]
    return ["pass@1 %", *reasoning, "mean ± se", "no answer %", "tokens", "seeds", *general]


def arms_cells(found: Row, row: Row) -> list[str]:
    """Return the cells of one arm of arms.json under `arms_head`."""

    def cell(family: Row) -> str:
        return percent(row["families"][family["name"]]["pass_at_1"]) if family["ran"] else "not run"

    tokens = row["mean_tokens"]
    return [
        row["arm"],
        *(cell(family) for family in found["families"] if family["reasoning"]),
        with_error(row["mean"]["value"], row["mean"]["se"]),
        percent(row["no_answer"]),
        "n/a" if tokens is None else f"{tokens:.0f}",
        str(row["seeds"]),
        *(cell(family) for family in found["families"] if not family["reasoning"]),
    ]


BROUGHT = {
    "base": "what training brings",
    "answers_only": "what thoughts bring",
    "unverified": "what verification and readability bring",
    "verified": "what readability brings",
}


def arms_lines(found: Row) -> list[str]:
    """Return a line for each difference of arms.json, and one for the student's share of the teacher's mean."""
    lines = []
    for row in found["differences"]:
        value = "n/a" if row["value"] is None else f"{100 * row['value']:+.1f}"
        lines.append(
            f"{row['model']} - {row['against']}: {value} ± {percent(row['se'])} points, "
            f"{BROUGHT[row['against']]} ({row['words']})"
        )
    if share := found["of_teacher"]:
        lines.append(f"student of teacher: {with_error(share['value'], share['se'])} % of its mean")
    return lines


def arms_table(found: Row) -> str:
    """Return arms.json as text: a line for each arm, then the differences."""
    table = text_table(arms_head(found), [arms_cells(found, row) for row in found["arms"]])
    return "\n".join([table, "", *arms_lines(found)])


FUNNEL_HEAD = ("stage", "in", "kept", "dropped", "seconds", "peak MB")


def funnel_cells(row: Row) -> list[str]:
    """Return the cells of one stage under FUNNEL_HEAD; a stage without a manifest is `not run`."""
    if not row["ran"]:
        return [row["stage"], "not run", "", "", "", ""]
    dropped = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items())
    return [
        row["stage"],
        str(row["entered"]),
        str(row["kept"]),
        dropped or "0",
        f"{row['seconds']:.1f}",
        f"{row['peak_mb']:.0f}",
    ]


def funnel_table(rows: Sequence[Row]) -> str:
    """Return the funnel as text; the last line holds the sum of the seconds and the largest of the peaks."""
    cells = [funnel_cells(row) for row in rows]
    seconds = sum(row["seconds"] for row in rows if row["ran"])
    peak = max((row["peak_mb"] for row in rows if row["ran"]), default=0.0)
    return text_table(FUNNEL_HEAD, [*cells, ["total", "", "", "", f"{seconds:.1f}", f"{peak:.0f}"]])
