"""Watching a training run: progress for the user, seconds in the loss log, and a stop where the loss breaks."""

from __future__ import annotations

import math
import time
from typing import Any

from pipeline.errors import UserError
from pipeline.progress import Progress


def make_watch() -> Any:
    """Return a TrainerCallback with a `close` method. It raises UserError where the loss is not a number."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        progress: Progress | None = None
        before = 0.0
        note = ""

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.started = time.monotonic()
            # The log survives in the checkpoint, so that seconds go on counting where they stopped.
            self.before = max((row.get("seconds", 0.0) for row in state.log_history), default=0.0)
            self.progress = Progress("train, steps", state.max_steps, state.global_step).__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if self.progress is not None:
                self.progress.advance(1, self.note)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if not state.log_history or "loss" not in (logs or {}):
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss is not a number at step {state.global_step}",
                    "lower train.sft.learning_rate",
                    "set train.dtype = 'float32'",
                )
            state.log_history[-1]["seconds"] = round(self.before + time.monotonic() - self.started, 2)
            self.note = f"loss {loss:.4f}"

        def close(self) -> None:
            if self.progress is not None:
                self.progress.__exit__()

    return Watch()


def loss_log(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the loss log of a trainer's history: a row for each time that the loss was logged."""
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm", "mean_token_accuracy", "seconds")
    rows = []
    for entry in history:
        if "loss" in entry:
            row = {name: entry[name] for name in names if name in entry}
            rows.append({k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()})
    return rows
