"""The stage `arms`: students beside that of the stage `train`, on equal SFT tokens, to tell what made it better.

An arm is a way of choosing what is trained on; `students/draw.py` holds them. Each is trained under
every seed of `[arms]`, by the same function, options and learning-rate schedule as the student, on as
many tokens as the student saw (padding aside, repeats included). Batches are counted in rows for all
arms alike, so an arm of short rows takes more steps: for rows without thoughts, a quarter as long,
about four times as many, which favours that control, not the student.

An arm's rows are drawn until they hold as many tokens as an epoch of the student's, and are then gone
through, each time in a new order, until the student's tokens are reached; an arm whose rows run out
before that repeats them more often.

`arms/ARM-SEED/` is a trained student, whole or not there: a kill costs one training at most, and less
where that one left checkpoints. A recipe that asks for other arms or seeds than before keeps those that
both name: `made_from.txt` in each is a hash of all that went into it.

Small students are trained side by side, a process each (`students/crew.py`); others one after another
in this process, so that the libraries are imported once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from pipeline.manifest import Counts, folder_hash
from pipeline.progress import say
from pipeline.records import content_hash
from pipeline.stages import Job, Outcome, stage_settings
from students.settings import ArmsSettings, TrainSettings

MADE_FROM = "made_from.txt"
APART = 0.02
"""Tokens seen by an arm and by the student agree within this share; only sets of very few rows cannot."""


def run(job: Job) -> Outcome:
    """Train what the recipe's `[arms]` asks for; counts are of trainings, facts of each (`fact`).

    Raises:
        UserError: an arm has no rows, or training's own trouble.
    """
    settings = job.recipe[ArmsSettings]
    planned = [
        (arm, seed) for arm in settings.arms for seed in settings.seeds if (arm, seed) != ("student", job.recipe.seed)
    ]
    if not planned:
        return Outcome(Counts(0, 0), {"trained": {}})
    from students.crew import side_by_side, train_side_by_side
    from students.fit import need_training_extra, quiet

    need_training_extra()
    quiet()
    student = _training(job.folder("student"))
    facts: dict[str, Any] = {}
    for arm, seed in planned:
        _adopt(job, f"{arm}-{seed}")
    missing = [(arm, seed) for arm, seed in planned if not (job.out / f"{arm}-{seed}" / "training.json").exists()]
    if (processes := side_by_side(job, len(missing))) > 1:
        train_side_by_side(job, missing, processes)
    else:
        for arm, seed in missing:
            say(f"arms: {arm}-{seed}")
            train_arm(job, arm, seed)
    for arm, seed in planned:
        out = job.out / f"{arm}-{seed}"
        facts[out.name] = fact(arm, seed, out)
        apart = facts[out.name]["tokens_seen"] / student["tokens"]["seen"] - 1
        if abs(apart) > APART:
            say(
                f"arms: {out.name} saw {facts[out.name]['tokens_seen']} tokens, {apart:+.1%} of the student's: "
                "too few rows to come nearer"
            )
    return Outcome(
        Counts(len(planned), len(facts)),
        {"student_tokens_seen": student["tokens"]["seen"], "trained": facts},
    )


def fact(arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return what the stage's manifest says of one training; `hash` tells its weights from others of its name."""
    training = _training(folder)
    return {
        "arm": arm,
        "seed": seed,
        "rows": training["rows"]["trained"],
        "tokens_per_epoch": training["tokens"]["rows"],
        "tokens_seen": training["tokens"]["seen"],
        "epochs": training["epochs"],
        "steps": training["steps"],
        "final_loss": training["final_loss"],
        "seconds": training["seconds"],
        "hash": folder_hash([folder]),
    }


def sequence(lengths: list[int], tokens: int, seed: int) -> list[int]:
    """Return places of rows, all of them before any again, in a new order each time, of about so many tokens.

    The sum of their lengths is as near to `tokens` as a whole row allows.
    """
    draw = random.Random(seed)
    order: list[int] = []
    left = tokens
    while True:
        places = list(range(len(lengths)))
        draw.shuffle(places)
        for place in places:
            # Taking the row must bring the sum nearer to the budget, not past it by more.
            if 2 * left < lengths[place] and order:
                return order
            order.append(place)
            left -= lengths[place]
            if left <= 0:
                return order


def train_arm(job: Job, arm: str, seed: int) -> None:
    """Train one arm under one seed aside, and rename it into place.

    Raises:
        UserError: the arm has no rows, or training's own trouble.
    """
    from students.draw import render_arm
    from students.fit import Rows, fit, load_base
    from students.render import lengths_of, read_examples, train_files
    from students.train import render_checked

    settings = job.recipe[TrainSettings]
    student = _training(job.folder("student"))
    out = job.out / f"{arm}-{seed}"
    aside = out.with_name(f"{out.name}.building")
    aside.mkdir(exist_ok=True)
    rendered = aside / "rendered.arrow"
    base = load_base(settings)
    if arm == "student":
        # Exactly as the stage `train`: its rows, its epochs.
        examples = read_examples(train_files(job.folder("dataset")))
        rows = Rows(rendered, render_checked(base, examples, settings, rendered))
    else:
        seen, an_epoch = student["tokens"]["seen"], student["tokens"]["rows"]
        tally = render_arm(job, arm, seed, base, min(seen, an_epoch), rendered)
        rows = Rows(rendered, tally, sequence(lengths_of(rendered), seen, seed))
    fit(settings, rows, seed, aside, f"{job.recipe.name}: {arm}, seed {seed}")
    rendered.unlink()
    (aside / MADE_FROM).write_text(made_from(job))
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)


def made_from(job: Job) -> str:
    """Return a hash of all that goes into an arm's training but its name and seed."""
    settings = stage_settings(job.stage, job.recipe)
    del settings["arms"]
    return content_hash(settings, job.fresh_inputs)


def _adopt(job: Job, name: str) -> None:
    """Take over an arm that the result of before holds, if it was trained from the same; its files are shared."""
    before, out = job.folder(job.stage.folder) / name, job.out / name
    mark = before / MADE_FROM
    if out.exists() or not mark.exists() or mark.read_text() != made_from(job):
        return
    aside = out.with_name(f"{name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(before, aside, copy_function=_share)
    aside.rename(out)
    say(f"arms: {name} as trained before")


def _share(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _training(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found
