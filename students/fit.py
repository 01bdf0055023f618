"""Training: rendered rows, a base and a seed in; a folder with a student that can be served out.

Read `fit` top to bottom: load, train, save. A training that was killed goes on from its newest whole
checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_json, write_whole
from pipeline.progress import say
from students import preflight
from students.arguments import SHOWN, sft_arguments
from students.base import load_config, load_model, load_tokenizer, set_padding, stop_ids
from students.card import student_card
from students.checkpoints import newest_whole
from students.render import Tally, end_of_turn, set_template
from students.settings import TrainSettings
from students.watch import loss_log, make_watch
from teacher.models import model_folder

SMALL_PARAMETERS = 12_000_000


@dataclass(frozen=True)
class Base:
    """A base ready to render rows for: where it lies, its tokenizer with the template, its config, the end of turn."""

    where: str
    tokenizer: Any
    config: Any
    end: int


@dataclass(frozen=True)
class Rows:
    """What is trained on: a file of rendered rows, their counts, and the order in which they are seen.

    `order` holds the places of the rows in the file, repeats included, and is gone through once. Where
    it is None the rows are drawn by the seed, anew each epoch, as the recipe's epochs or steps have it.
    """

    file: Path
    tally: Tally
    order: list[int] | None = None


def load_base(settings: TrainSettings) -> Base:
    """Return the base of the settings, checked as far as that goes without rows.

    Raises:
        UserError: it cannot be loaded, or it cannot be trained with these settings.
    """
    where = model_folder(settings.base)
    tokenizer = load_tokenizer(where, settings)
    config = load_config(where, settings)
    preflight.check_positions(getattr(config.get_text_config(), "max_position_embeddings", None), settings)
    set_template(tokenizer, settings)
    end = end_of_turn(tokenizer, settings)
    set_padding(tokenizer, settings, end)
    preflight.check_padding(tokenizer, end)
    return Base(where, tokenizer, config, end)


def fit(settings: TrainSettings, rows: Rows, seed: int, out: Path, name: str) -> dict[str, Any]:
    """Train the base on these rows under this seed; leave the student in `out`, and nothing else of it there.

    Returns:
        What training.json holds.

    Raises:
        UserError: the base or a setting is refused, memory is short, or the loss broke.
    """
    checkpoints = out / "checkpoints"
    arguments = sft_arguments(settings, checkpoints, seed, ordered=rows.order is not None)
    # Loaded anew for each training: what follows changes tokenizer and config.
    base = load_base(settings)

    from transformers import set_seed

    set_seed(arguments.seed)  # before peft draws the adapter's weights
    model = load_model(base.where, base.config, settings)
    stops = stop_ids(base.tokenizer, model, base.end)
    base.tokenizer.eos_token = base.tokenizer.convert_ids_to_tokens(base.end)
    with _threads(model, arguments):
        trainer, resumed = _train(model, base.tokenizer, arguments, settings, rows)

    training = _training_facts(settings, rows, seed, trainer, arguments, resumed)
    _save(trainer.model, base.tokenizer, stops, settings, out)
    write_json(out / "training.json", training)
    write_whole(out / "README.md", student_card(name, settings, training))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return training


def need_training_extra() -> None:
    """Refuse to train where its libraries are missing or several GPUs are visible.

    Raises:
        UserError: with the ways out.
    """
    try:
        import peft  # noqa: F401
        import torch
        import trl  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"training needs the extra 'cpu' or 'gpu' ({error})", "run 'make setup'", "pip install 'retort[cpu]'"
        ) from error
    if torch.cuda.device_count() > 1:
        raise UserError(
            f"{torch.cuda.device_count()} GPUs are visible and training runs on one",
            "set CUDA_VISIBLE_DEVICES=0",
        )


def quiet() -> None:
    """Leave the terminal to Retort's own progress."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def _threads(model: Any, arguments: Any) -> Iterator[None]:
    """Compute with one thread on the CPU while the block runs, where the model is small.

    Its matrices gain little from a second one. And where another process wants the same cores, threads
    that wait for each other at every operation stand still: 64 steps of a 0.9M model took 8 s with one
    thread of two cores that were busy, and over 200 s with two.
    """
    import torch

    before = torch.get_num_threads()
    if arguments.use_cpu and model.num_parameters() < SMALL_PARAMETERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(model: Any, tokenizer: Any, arguments: Any, settings: TrainSettings, rows: Rows) -> tuple[Any, int | None]:
    """Train and return the trainer, and the step it resumed from (None for a run from the start)."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerState
    from trl import SFTTrainer

    dataset = Dataset.from_file(str(rows.file))
    if rows.order is not None:
        dataset = dataset.select(rows.order)
    checkpoint = newest_whole(Path(arguments.output_dir))
    watch = make_watch()
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=_adapter(settings),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    if checkpoint is not None:
        say(f"train: going on from {checkpoint.name}")
    try:
        if checkpoint is not None and _finished(checkpoint):
            # `train` would take one step more than the run has.
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise UserError(
                "no memory left while training",
                "lower train.sft.per_device_train_batch_size and raise train.sft.gradient_accumulation_steps",
                "lower train.max_length",
                "set train.method = 'lora'",
            ) from error
        raise
    finally:
        watch.close()
    return trainer, int(checkpoint.name.rpartition("-")[2]) if checkpoint else None


def _finished(checkpoint: Path) -> bool:
    """Whether the run had taken its last step when the checkpoint was saved."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return bool(state["global_step"] >= state["max_steps"])


def _adapter(settings: TrainSettings) -> Any:
    if settings.method == "full":
        return None
    from peft import LoraConfig

    shape = settings.lora
    return LoraConfig(
        r=shape.r,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=shape.target_modules,
        task_type="CAUSAL_LM",
    )


def _training_facts(
    settings: TrainSettings, rows: Rows, seed: int, trainer: Any, arguments: Any, resumed: int | None
) -> dict[str, Any]:
    """Return what training.json holds. Seconds are of stepping, tries that were killed included."""
    tally = rows.tally
    epochs = trainer.state.epoch or 0.0
    if rows.order is not None:
        epochs *= len(rows.order) / tally.kept
    log = loss_log(trainer.state.log_history)
    return {
        "base": settings.base,
        "revision": settings.revision,
        "method": settings.method,
        "chat_template": settings.chat_template,
        "seed": seed,
        "device": str(arguments.device),
        "rows": {"in": tally.rows, "trained": tally.kept, "over_length": tally.over_length},
        "tokens": {
            "rows": tally.tokens,
            "labels": tally.label_tokens,
            "seen": int(trainer.state.num_input_tokens_seen),
            "over_length": tally.over_length_tokens,
        },
        "longest_row": tally.longest_seen,
        "sources": tally.sources,
        "licenses": tally.licenses,
        "steps": trainer.state.global_step,
        "epochs": round(epochs, 4),
        "seconds": log[-1].get("seconds", 0.0) if log else 0.0,
        "resumed_from": resumed,
        "final_loss": log[-1]["loss"] if log else None,
        "options": {name: str(getattr(getattr(arguments, name), "value", getattr(arguments, name))) for name in SHOWN},
        "loss": log,
    }


def _save(model: Any, tokenizer: Any, stops: list[int], settings: TrainSettings, out: Path) -> None:
    """Save weights (an adapter is merged, so that any engine serves them), config, tokenizer and template."""
    from transformers import GenerationConfig

    if settings.method == "lora":
        model = model.merge_and_unload()
    model.config.use_cache = True  # the trainer turns it off
    model.config.eos_token_id = stops[0]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.6,  # what DeepSeek-R1's protocol samples its students with (arXiv 2501.12948v2)
        top_p=0.95,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
