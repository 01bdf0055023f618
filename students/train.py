"""The stage `train`: the dataset and a base in, a student that can be served out.

Read `run` top to bottom: render, check, train. A run that was killed goes on from its newest whole
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest import Counts
from pipeline.progress import say
from pipeline.records import Message
from pipeline.stages import Job, Outcome
from students import preflight
from students.arguments import sft_arguments
from students.fit import Base, Rows, fit, load_base, need_training_extra, quiet
from students.render import Rendered, Tally, read_examples, render_all, train_files
from students.settings import TrainSettings


def run(job: Job) -> Outcome:
    """Train the student of a job and leave it in `job.out`.

    Raises:
        UserError: training cannot start (settings, base, dataset, preflight), or the loss broke.
    """
    settings = job.recipe[TrainSettings]
    need_training_extra()
    quiet()
    sft_arguments(settings, job.out / "checkpoints", job.recipe.seed)  # refused before rows are rendered
    files = train_files(job.folder("dataset"))
    refuse_empty(files, job.folder("dataset"))
    rendered = job.out / "rendered.arrow"
    tally = render_checked(load_base(settings), read_examples(files), settings, rendered)
    if tally.over_length:
        say(f"train: {tally.over_length} of {tally.rows} rows are over {settings.max_length} tokens and left out")

    training = fit(settings, Rows(rendered, tally), job.recipe.seed, job.out, job.recipe.name)
    rendered.unlink()
    kept = ("base", "method", "tokens", "steps", "epochs", "final_loss", "device", "resumed_from")
    dropped = {"over_length": tally.over_length} if tally.over_length else {}
    return Outcome(Counts(tally.rows, tally.kept, dropped), {name: training[name] for name in kept})


def refuse_empty(files: list[Path], dataset: Path) -> None:
    """Refuse a dataset without rows.

    Raises:
        UserError: there is none.
    """
    if next(read_examples(files), None) is None:
        raise UserError(
            f"no accepted trace reached the dataset {dataset}",
            "draw more samples (sampling.samples)",
            "take more problems",
            "use a stronger teacher (teacher.model)",
        )


def render_checked(base: Base, examples: Iterable[dict[str, Any]], settings: TrainSettings, path: Path) -> Tally:
    """Render the rows into a file by `render_all`, every one through the preflight.

    Raises:
        UserError: a row is refused, or none is left.
    """
    first = True

    def check(row: Rendered, messages: list[Message], uuid: str) -> None:
        nonlocal first
        preflight.check_row(base.tokenizer, row, messages, base.end, settings, uuid)
        if first:
            preflight.check_prompt(base.tokenizer, messages, uuid)
            first = False

    tally = render_all(base.tokenizer, examples, settings, check, path)
    preflight.check_rows_left(tally, settings)
    return tally
