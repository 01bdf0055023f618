"""What an arm is trained on: its rows, drawn and rendered.

- `answers_only`: the dataset's rows with the thought taken out: what is left reads as a thought that
  was opened and closed with nothing in it. Rows without a thought stay as they are.
- `unverified`: traces of the run's pool, at most `dataset.max_per_problem` a problem, whatever their
  verdict and however they read.
- `verified`: the same of the traces that the verifier found correct.

A trace is trained as the teacher ended it: one whose thought never closed stays unclosed, and one that
was cut off by its budget is not taught to end there (its end-of-turn token is left out).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filtering.settings import DatasetSettings
from pipeline.errors import UserError
from pipeline.parts import part_paths, read_rows
from pipeline.progress import say
from pipeline.records import Message, Problem, State
from pipeline.stages import Job
from students import preflight
from students.fit import Base
from students.render import (
    THOUGHT,
    Rendered,
    Tally,
    read_examples,
    render,
    row_file,
    train_files,
    with_tags,
)
from students.settings import TrainSettings

NO_THOUGHT = "<think>\n\n</think>\n\n"
ROWS_A_TAKE = 200


def render_arm(job: Job, arm: str, seed: int, base: Base, tokens: int, path: Path) -> Tally:
    """Render an arm's rows, in a drawn order, into a file until they hold `tokens` tokens or run out.

    Rows over `max_length` are left out and counted, as are traces that cannot be rendered at all (no
    text; a tag or a token of the template in the middle of what the teacher said).

    Raises:
        UserError: no row is left.
    """
    settings = job.recipe[TrainSettings]
    tally = Tally()
    refused: Counter[str] = Counter()
    examples = answers(job, seed) if arm == "answers_only" else traces(job, seed, arm == "verified")
    with row_file(path) as add:
        for example in examples:
            if tally.tokens >= tokens:
                break
            tally.rows += 1
            try:
                row = _row(base, example, settings)
            except UserError as error:
                refused[error.what.partition(": ")[2].partition(":")[0]] += 1
                continue
            tally.longest_seen = max(tally.longest_seen, len(row.input_ids))
            if len(row.input_ids) > settings.max_length:
                tally.over_length += 1
                tally.over_length_tokens += len(row.input_ids)
                continue
            tally.keep(row, example)
            add(row)
    if refused:
        shown = "; ".join(f"{count} {why}" for why, count in refused.most_common(3))
        say(f"arms: {sum(refused.values())} rows of {arm} cannot be rendered and are left out ({shown})")
    if not tally.kept:
        raise UserError(
            f"the arm '{arm}' has no rows to train on ({tally.rows} looked at)",
            f"take '{arm}' out of arms.arms",
            "sample more traces",
        )
    return tally


def answers(job: Job, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the dataset's rows without their thoughts, in an order drawn by the seed."""
    files = train_files(job.folder("dataset"))
    rows = list(read_examples(files))
    random.Random(f"{seed}/answers").shuffle(rows)
    for row in rows:
        yield {**row, "messages": [_thoughtless(message) for message in row["messages"]], "cut": False}


def traces(job: Job, seed: int, correct: bool) -> Iterator[dict[str, Any]]:
    """Yield rows of the pool's traces, in an order drawn by the seed, at most `max_per_problem` a problem."""
    most = job.recipe[DatasetSettings].max_per_problem
    problems = {row["id"]: Problem.from_dict(row) for row in read_rows(job.folder("problems"))}
    right = (
        {row["trace_id"] for row in read_rows(job.folder("verdicts")) if row["state"] == State.CORRECT}
        if correct
        else None
    )
    light = list(read_rows(job.folder("traces"), columns=["id", "problem_id"]))
    # By their ids, so that the draw does not depend on the order in which traces came back.
    places = sorted(range(len(light)), key=lambda place: str(light[place]["id"]))
    random.Random(f"{seed}/traces").shuffle(places)
    taken: Counter[str] = Counter()
    drawn = []
    for place in places:
        problem = light[place]["problem_id"]
        if problem in problems and taken[problem] < most and (right is None or light[place]["id"] in right):
            taken[problem] += 1
            drawn.append(place)
    table = pa.concat_tables(
        [pq.read_table(part, memory_map=True) for part in part_paths(job.folder("traces"))],
        promote_options="default",  # an older part may lack a column
    )
    for start in range(0, len(drawn), ROWS_A_TAKE):
        for row in table.take(drawn[start : start + ROWS_A_TAKE]).to_pylist():
            yield _example(problems[row["problem_id"]], row)


def _example(problem: Problem, trace: dict[str, Any]) -> dict[str, Any]:
    """Return a row for a trace, its turn as the teacher left it."""
    thought, answer = trace["thought"], trace["answer"]
    if thought is None:
        content = trace["text"]
    elif answer is None:
        content = f"<think>\n{thought}"
    else:
        content = f"<think>\n{thought}\n</think>\n\n{answer}"
    return {
        "uuid": trace["id"],
        "messages": [*problem.messages, {"role": "assistant", "content": content}],
        "license": problem.license,
        "source": problem.source,
        "cut": trace["finish_reason"] == "length",
    }


def _thoughtless(message: Message) -> Message:
    if message["role"] != "assistant" or not (thought := THOUGHT.match(message["content"])):
        return message
    return {"role": "assistant", "content": NO_THOUGHT + message["content"][thought.end() :]}


def _row(base: Base, example: dict[str, Any], settings: TrainSettings) -> Rendered:
    """Return the row, through the preflight.

    Raises:
        UserError: the preflight refuses it, or the teacher said nothing.
    """
    messages = with_tags(example["messages"], settings)
    if not messages[-1]["content"].strip():
        raise UserError(f"row {example['uuid']}: the teacher said nothing")
    row = render(base.tokenizer, messages)
    preflight.check_row(base.tokenizer, row, messages, base.end, settings, example["uuid"])
    if not example["cut"]:
        return row
    _, stop = preflight.spans(row)[-1]
    return Rendered(row.input_ids[: stop - 1], row.labels[: stop - 1])
