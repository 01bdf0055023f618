"""Trains a small model from scratch: isolated rows, Muon for the matrices, AdamW for the rest, resumable.

Rows are not packed: samples in one attention window kept models this small from learning at all (under 5%
after 3.5M tokens, against 99.5% isolated). And a step sees rows of every kind and length: Muon makes each
step as long as any other, so that steps of one kind of row each pull against each other (`make bench-batches`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import whole_file
from pipeline.progress import say
from teacher.machine import choose_dtype
from teacher.nano.corpus import Row

CHUNK = 2048
"""Rows drawn at once."""
PART = 1400
"""Tokens, about, that go through the model at once: a step's rows, sorted by length, in parts of little padding."""
IGNORED = -100


Rows = Callable[[random.Random, float], Iterator[Row]]
"""Yields rows without end, given the share of the plan that is done."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. Learning rates are those measured for models of this size."""

    tokens: int
    """Tokens to train on, padding not counted."""
    batch_tokens: int = 4096
    """Tokens a step, padding not counted."""
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    warmup: int = 100
    """Steps."""
    decay: float = 0.3
    """The last share of the tokens, over which the rates fall to a hundredth."""
    power: float = 1.0
    """Of what is left of that share: 1 falls in a straight line, above it sooner."""
    checkpoint_s: float = 120.0


def train(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    plan: Plan,
    seed: int,
    out: Path,
    name: str,
    stop: int | None = None,
) -> dict[str, Any]:
    """Train a model in place and return what it took: tokens, steps, seconds, the running mean of the loss.

    The checkpoint lies in `out`; a run that was cut short goes on from it, with the rows it would have seen.

    Args:
        name: what progress lines begin with.
        stop: leave off after so many tokens instead of the plan's.
    """
    import torch

    muon, adamw = optimizers(model, plan)
    state: dict[str, Any] = {"tokens": 0, "steps": 0, "seconds": 0.0, "chunk": 0, "done": 0.0, "place": 0, "loss": 0.0}
    saved = out / "checkpoint.pt"
    if saved.exists():
        held = torch.load(saved, weights_only=False)
        model.load_state_dict(held["model"])
        muon.load_state_dict(held["muon"])
        adamw.load_state_dict(held["adamw"])
        state = held["state"]
        say(f"{name}: going on from {state['tokens'] / 1e6:.1f}M tokens")
    last_saved = last_said = time.monotonic()
    begun = last_saved - state["seconds"]
    model.train()
    while state["tokens"] < (stop or plan.tokens):
        chunk = batches(tokenizer, rows, seed, state["chunk"], state["done"], plan.batch_tokens)
        if state["place"] == len(chunk):
            state.update(chunk=state["chunk"] + 1, place=0, done=state["tokens"] / plan.tokens)
            continue
        for parts, count in chunk[state["place"] :]:
            if state["tokens"] >= (stop or plan.tokens):
                break
            rate = _rate(state["tokens"] / plan.tokens, state["steps"], plan)
            for optimizer, peak in ((muon, plan.muon_lr), (adamw, plan.adamw_lr)):
                for group in optimizer.param_groups:
                    group["lr"] = peak * rate
            loss = 0.0
            for ids, labels, share in parts:
                part = share * loss_of(model, ids, labels)
                part.backward()
                loss += part.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in (muon, adamw):
                optimizer.step()
                optimizer.zero_grad()
            now = time.monotonic()
            state["loss"] = loss if not state["steps"] else 0.98 * state["loss"] + 0.02 * loss
            state["tokens"] += count
            state["steps"] += 1
            state["place"] += 1
            state["seconds"] = now - begun
            if now - last_said > 30:
                last_said = now
                say(
                    f"{name}: {state['tokens'] / 1e6:.2f}M of {plan.tokens / 1e6:g}M tokens, loss {state['loss']:.3f}, "
                    f"{state['tokens'] / state['seconds']:.0f} tokens/s"
                )
            if now - last_saved > plan.checkpoint_s:
                last_saved = now
                _save(saved, model, muon, adamw, state)
    _save(saved, model, muon, adamw, state)
    model.eval()
    return state


def loss_of(model: Any, ids: Any, labels: Any) -> Any:
    """Return the mean loss of a batch over its labels.

    Rows are padded at their end and attention looks back only, so that no mask is needed; logits are
    computed where there is a label alone.
    """
    import torch

    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])


def _save(path: Path, model: Any, muon: Any, adamw: Any, state: dict[str, Any]) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as aside:
        torch.save(
            {"model": model.state_dict(), "muon": muon.state_dict(), "adamw": adamw.state_dict(), "state": state}, aside
        )


def optimizers(model: Any, plan: Plan) -> tuple[Any, Any]:
    """Return Muon for the inner matrices and AdamW for embeddings, norms, the router and the experts' stacks."""
    import torch

    if choose_dtype() == "float32":
        # torch's own multiplies in bfloat16, which takes longer than all else where the processor has to emulate it.
        torch.optim._muon._zeropower_via_newtonschulz = orthogonal
    matrices: list[Any] = []
    rest: list[Any] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name and "gate.weight" not in name
        (matrices if inner else rest).append(parameter)
    return (
        torch.optim.Muon(matrices, lr=plan.muon_lr, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=plan.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    )


def orthogonal(matrix: Any, coefficients: tuple[float, float, float], steps: int, eps: float) -> Any:
    """Return torch.optim.Muon's approximation of the nearest orthogonal matrix, in the matrix's own number format."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def _rate(done: float, step: int, plan: Plan) -> float:
    warm = min(1.0, (step + 1) / plan.warmup)
    left = min(1.0, (1.0 - done) / plan.decay) ** plan.power
    return warm * max(0.01, left)


Part = tuple[Any, Any, float]
"""Token ids and labels (rows x width, padded), and the share of its step's labels."""


def batches(tokenizer: Any, rows: Rows, seed: int, chunk: int, done: float, size: int) -> list[tuple[list[Part], int]]:
    """Return the steps of a chunk, parts and tokens without padding of each; the same whenever they are drawn.

    Args:
        done: the share of the plan that was done when the chunk began.
        size: tokens a step, at most, padding not counted.
    """
    source = rows(random.Random(f"{seed}/{chunk}"), done)
    drawn = [next(source) for _ in range(CHUNK)]
    encoded = tokenizer([row.text for row in drawn], return_offsets_mapping=True)
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    tokens = 0
    for row, ids, offsets in zip(drawn, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        labels = [IGNORED if start < row.prompt else id for id, (start, _) in zip(ids, offsets, strict=True)]
        if groups[-1] and tokens + len(ids) > size:
            groups.append([])
            tokens = 0
        groups[-1].append((ids, labels))
        tokens += len(ids)
    return [(_parts(group), sum(len(ids) for ids, _ in group)) for group in groups]


def _parts(group: list[tuple[list[int], list[int]]]) -> list[Part]:
    import torch

    group = sorted(group, key=lambda pair: len(pair[0]))
    split: list[list[tuple[list[int], list[int]]]] = [[]]
    for pair in group:
        if split[-1] and (len(split[-1]) + 1) * len(pair[0]) > PART:
            split.append([])
        split[-1].append(pair)
    whole = sum(label != IGNORED for _, labels in group for label in labels[1:])
    found = []
    for part in split:
        width = max(len(ids) for ids, _ in part)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in part])
        labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in part])
        found.append((ids, labels, int((labels[:, 1:] != IGNORED).sum()) / whole))
    return found


def parameters(model: Any) -> int:
    """Return how many parameters a model has, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
