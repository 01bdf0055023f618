"""Batches: what a small model learns from steps of mixed rows, and from steps of rows of one length each.

`make bench-batches` trains the bundled base's architecture from scratch twice on two families together, on as many
tokens, rows and steps, and keeps results/batches.json. Sorting rows by length saves padding; it also gives
each step rows of one family.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks.results import Figure, keep
from teacher.families.exercise import Hand
from teacher.nano.corpus import Row, conversation, draw

FAMILIES = ("sums", "functions")
MTOKENS = 1.25
BATCH_TOKENS = 2048
ROWS_A_STEP = 25
QUESTIONS = 100


def main(overrides: list[str]) -> int:
    """Train both, write the results, return the exit status."""
    import torch

    from students.nano.make import new_base, shared_tokenizer
    from students.nano.measure import measure
    from teacher.nano.pretrain import Plan, train

    torch.set_num_threads(1)
    tokenizer = shared_tokenizer(seed=1)
    plan = Plan(tokens=int(MTOKENS * 1e6), batch_tokens=BATCH_TOKENS)
    figures = []
    for name, rows in {"mixed": mixed, "of one length": of_one_length}.items():
        torch.manual_seed(1)
        model = new_base(tokenizer)
        with tempfile.TemporaryDirectory() as folder:
            train(model, tokenizer, rows, plan, 1, Path(folder), f"rows {name}")
        for family in FAMILIES:
            found = measure(model, tokenizer, family, count=QUESTIONS)
            what = f"{family} right after {MTOKENS}M tokens, steps of rows {name}"
            figures.append(Figure(what, found.states["correct"] / QUESTIONS, "share", "make bench-batches"))
    print(keep("batches", figures))
    return 0


def mixed(rng: random.Random, done: float = 0.0) -> Iterator[Row]:
    """Yield rows of the families as they are drawn."""
    while True:
        yield conversation(draw(rng.choice(FAMILIES), rng), Hand(rng))


def of_one_length(rng: random.Random, done: float = 0.0) -> Iterator[Row]:
    """Yield the same rows so that those of about one length, as many as make a step, follow each other."""
    source = mixed(rng)
    while True:
        rows = sorted(islice(source, 80 * ROWS_A_STEP), key=lambda row: len(row.text))
        steps = [rows[at : at + ROWS_A_STEP] for at in range(0, len(rows), ROWS_A_STEP)]
        rng.shuffle(steps)
        for step in steps:
            yield from step


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
