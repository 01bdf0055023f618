"""The stage `dataset`: accepted traces become the published folder that `datasets.load_dataset` reads."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filtering.card import write_card
from filtering.settings import DatasetSettings
from pipeline.manifest import Counts
from pipeline.parts import part_paths, read_rows, write_part
from pipeline.records import Example, Problem, Trace, content_hash
from pipeline.stages import Job, Outcome

THOUGHT = "<think>\n{thought}\n</think>\n\n{answer}"
"""How a trace stands in an assistant's turn: DeepSeek-R1's format (arXiv 2501.12948, table 1)."""
ROWS_A_BATCH = 1000


def run(job: Job) -> Outcome:
    """Leave dataset/data/train-*.parquet, dataset/data/rejected-*.parquet and dataset/README.md.

    The rows' order comes from their ids alone: the same traces give the same bytes, however they were
    spread over parts.
    """
    settings = job.recipe[DatasetSettings]
    problems = {row["id"]: Problem.from_dict(row) for row in read_rows(job.folder("problems"))}
    # Only the columns that selection needs are held for all traces; the rows are fetched by place after.
    light = list(read_rows(job.folder("accepted"), columns=["id", "problem_id", "completion_tokens"]))
    chosen = select(light, settings, job.recipe.seed)
    places = {row["id"]: place for place, row in enumerate(light)}
    order = [places[id] for id in sorted(chosen, key=lambda id: content_hash(job.recipe.seed, id))]
    tokens = sum(light[place]["completion_tokens"] for place in order)
    data = job.out / "data"
    _write(data, "train", _rows(job.folder("accepted"), order, problems), len(order), settings.rows_per_file)
    rejected = _rejected_order(job.folder("rejected"), problems)
    _write(data, "rejected", _rows(job.folder("rejected"), rejected, problems), len(rejected), settings.rows_per_file)
    counts = Counts(
        len(light), len(order), {"over_max_per_problem": len(light) - len(order)} if len(light) > len(order) else {}
    )
    write_card(job, counts, tokens, len(rejected))
    return Outcome(counts, {"completion_tokens": tokens, "rejected": len(rejected)})


def select(rows: list[dict[str, Any]], settings: DatasetSettings, seed: int) -> list[str]:
    """Return the ids of at most `max_per_problem` accepted traces a problem, the same whatever the rows' order."""
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row)
    chosen: list[str] = []
    for problem_id, group in sorted(by_problem.items()):
        group.sort(key=lambda row: (row["completion_tokens"], row["id"]))
        if settings.select == "random":
            group.sort(key=lambda row: row["id"])
            random.Random(f"{seed}/{problem_id}").shuffle(group)
        chosen += [row["id"] for row in group[: settings.max_per_problem]]
    return chosen


def _rejected_order(folder: Path, problems: dict[str, Problem]) -> list[int]:
    """Places of the rejected traces in id order; those whose problem left the run have no question to publish."""
    rows = list(read_rows(folder, columns=["id", "problem_id"]))
    places = [place for place, row in enumerate(rows) if row["problem_id"] in problems]
    return sorted(places, key=lambda place: str(rows[place]["id"]))


def _rows(folder: Path, order: list[int], problems: dict[str, Problem]) -> Iterator[dict[str, Any]]:
    """Yield examples for the rows at these places, fetched a batch at a time."""
    table = pa.concat_tables([pq.read_table(path, memory_map=True) for path in part_paths(folder)])
    for start in range(0, len(order), ROWS_A_BATCH):
        for row in table.take(order[start : start + ROWS_A_BATCH]).to_pylist():
            yield example(problems[row["problem_id"]], row).to_dict()


def example(problem: Problem, row: dict[str, Any]) -> Example:
    """Return the published row for a trace (with its `state`, `decided_by` and, where rejected, `reason`)."""
    trace = Trace.from_dict(row)
    if trace.thought is None:
        content = trace.text
    elif trace.answer is None:
        content = f"<think>\n{trace.thought}"
    else:
        content = THOUGHT.format(thought=trace.thought, answer=trace.answer)
    return Example(
        uuid=trace.id,
        messages=[*problem.messages, {"role": "assistant", "content": content}],
        problem=problem.messages[-1]["content"],
        answer=problem.reference,
        domain=problem.domain,
        source=problem.source,
        license=problem.license,
        problem_id=problem.id,
        teacher=trace.teacher,
        revision=trace.revision,
        temperature=trace.temperature,
        top_p=trace.top_p,
        verdict=row["state"] or "undecided",
        decided_by=row["decided_by"] or "none",
        completion_tokens=trace.completion_tokens,
        reason=row.get("reason"),
    )


def _write(folder: Path, name: str, rows: Iterator[dict[str, Any]], count: int, rows_per_file: int) -> None:
    files = max(1, -(-count // rows_per_file))
    for number in range(files):
        taken = Counter[str]()

        def batches(taken: Counter[str] = taken) -> Iterator[pa.RecordBatch]:
            while (room := min(ROWS_A_BATCH, rows_per_file - taken["rows"])) > 0:
                batch = list(islice(rows, room))
                if not batch:
                    return
                taken["rows"] += len(batch)
                yield pa.RecordBatch.from_pylist(batch, schema=Example.SCHEMA)

        write_part(folder / f"{name}-{number:05d}-of-{files:05d}.parquet", batches(), Example.SCHEMA)
