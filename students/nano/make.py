"""`make nano`: trains the bundled teacher and the bundled student base from scratch, side by side.

Leaves RUN/teacher/model and RUN/base/model, each with its card. A run that was cut short goes on from its
checkpoints. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import locked
from pipeline.progress import say
from students.nano import corpus as base_corpus
from students.nano.card import card
from students.settings import TEMPLATES
from teacher.nano import corpus as teacher_corpus
from teacher.nano.pretrain import Plan, Rows

ROOT = Path(__file__).resolve().parent.parent.parent
HOMES = {"teacher": ROOT / "teacher/nano/model", "base": ROOT / "students/nano/model"}
TEXTS = 12_000
"""Rows of each corpus from which the vocabulary is taken."""
MTOKENS = {"teacher": 13.0, "base": 16.0}
DECAY = {"teacher": 0.95, "base": 0.3}
POWER = {"teacher": 1.5, "base": 1.0}
"""A high rate is what new ways form at; what the teacher's many families share a small model by is a low one."""
CORPORA = {"teacher": teacher_corpus.teacher_rows, "base": base_corpus.base_rows}
FINISHES: dict[str, tuple[tuple[Rows, Plan], ...]] = {
    "teacher": (
        (teacher_corpus.teacher_finish, Plan(1_300_000, decay=1.0, muon_lr=0.006, adamw_lr=1e-3)),
        (
            partial(teacher_corpus.teacher_finish, often=teacher_corpus.FINISH_MORE),
            Plan(1_300_000, decay=1.0, muon_lr=0.006, adamw_lr=1e-3),
        ),
    ),
    "base": (
        (base_corpus.base_finish, Plan(2_200_000, decay=1.0)),
        (base_corpus.base_finish, Plan(2_200_000, decay=1.0)),
        (base_corpus.base_chains, Plan(2_200_000, decay=1.0, muon_lr=0.01, adamw_lr=1.5e-3)),
    ),
}
"""What follows, with fresh rates: rather what the model has half learned till then."""


def main(argv: list[str] | None = None) -> int:
    """Train what is missing; return 0, or 2 where the user can put it right."""
    arguments = argparse.ArgumentParser(prog="make nano", description="Train the bundled models from scratch.")
    arguments.add_argument("--run", type=Path, default=Path("runs/nano"), metavar="DIR")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--teacher", type=float, default=MTOKENS["teacher"], metavar="MTOKENS")
    arguments.add_argument("--base", type=float, default=MTOKENS["base"], metavar="MTOKENS")
    arguments.add_argument("--install", action="store_true", help="put the models where the recipes look for them")
    given = arguments.parse_args(argv)
    try:
        with locked(given.run):
            _both(given)
    except UserError as error:
        print(f"nano: {error.line()}", file=sys.stderr)
        return 2
    return 0


def _both(given: argparse.Namespace) -> None:
    # Two processes with a thread each: models this small waste a second thread.
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    jobs = {
        role: context.Process(
            target=make, args=(role, given.run / role, given.seed, getattr(given, role), max(1, cores // 2))
        )
        for role in ("teacher", "base")
    }
    for job in jobs.values():
        job.start()
    for job in jobs.values():
        job.join()
    failed = [role for role, job in jobs.items() if job.exitcode]
    if failed:
        raise UserError(f"making {' and '.join(failed)} failed", "run the same command again: it goes on from there")
    for role, home in HOMES.items():
        made = given.run / role / "model"
        if given.install:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(made, home)
            say(f"nano: {role} is in {home.relative_to(ROOT)}")
        else:
            say(f"nano: {role} is in {made}; --install puts it into {home.relative_to(ROOT)}")


def make(role: str, out: Path, seed: int, mtokens: float, threads: int) -> None:
    """Train one of the two models, measure it, and leave out/model with its card."""
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    import torch

    from teacher.nano.model import new_teacher, save
    from teacher.nano.pretrain import train

    if (out / "model/README.md").exists():
        say(f"nano: {role} is made already")
        return
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = shared_tokenizer(seed)
    model = new_teacher(tokenizer) if role == "teacher" else new_base(tokenizer)
    plan = Plan(tokens=int(mtokens * 1e6), decay=DECAY[role], power=POWER[role])
    took = [(plan, train(model, tokenizer, CORPORA[role], plan, seed, out, role))]
    for number, (rows, finish) in enumerate(FINISHES[role]):
        name = f"finish-{number + 1}"
        took.append((finish, train(model, tokenizer, rows, finish, seed + number, out / name, f"{role}, {name}")))
    aside = out / "model.building"
    shutil.rmtree(aside, ignore_errors=True)
    save(model, tokenizer, (TEMPLATES / "chatml.jinja").read_text(), aside)
    text = card(role, model.float(), tokenizer, took, seed)
    (aside / "README.md").write_text(text)
    shutil.rmtree(out / "model", ignore_errors=True)
    aside.rename(out / "model")
    print(text, flush=True)


def _die_with(parent: int) -> None:
    """End this process soon after its parent: two of them must not write one checkpoint."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def new_base(tokenizer: Any) -> Any:
    """Return an untrained student base (transformers' Qwen2ForCausalLM) for the tokenizer's vocabulary."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from teacher.nano.model import tokens_of

    shape = {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 384,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    }
    return Qwen2ForCausalLM(Qwen2Config(**shape, **tokens_of(tokenizer)))


def shared_tokenizer(seed: int) -> Any:
    """Return the tokenizer of both models, made from a sample of both corpora."""
    from teacher.nano.tokenizer import build

    rng = random.Random(f"vocabulary/{seed}")
    teacher, base = teacher_corpus.teacher_rows(rng), base_corpus.base_rows(rng)
    texts = [next(source).text for source in (teacher, base) for _ in range(TEXTS)]
    # What a small share of rows uses must be in it all the same.
    texts += [
        teacher_corpus.conversation(
            teacher_corpus.draw(name, rng), teacher_corpus.Hand(rng), rng.choice(teacher_corpus.FLAWS)
        ).text
        for name in teacher_corpus.WEIGHTS
        for _ in range(200)
    ]
    return build(texts)


if __name__ == "__main__":
    sys.exit(main())
