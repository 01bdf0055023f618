"""The stage `train`: the dataset and a base in, a student that can be served out.

Read `run` top to bottom: render, check, train, save. A run that was killed goes on from its newest
whole checkpoint.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_json, write_whole
from pipeline.manifest import Counts
from pipeline.progress import say
from pipeline.records import Message
from pipeline.stages import Job, Outcome
from students import preflight
from students.base import load_config, load_model, load_tokenizer, set_padding, stop_ids
from students.card import student_card
from students.checkpoints import newest_whole
from students.render import Rendered, Tally, end_of_turn, read_examples, render_all, set_template, train_files
from students.settings import TrainSettings
from students.watch import loss_log, make_watch

SHOWN = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "bf16",
)
"""The options that the student's card shows."""


def run(job: Job) -> Outcome:
    """Train the student of a job and leave it in `job.out`.

    Raises:
        UserError: training cannot start (settings, base, dataset, preflight), or the loss broke.
    """
    settings = job.recipe[TrainSettings]
    _need_training_extra()
    _quiet()
    checkpoints = job.out / "checkpoints"
    arguments = sft_arguments(settings, checkpoints, job.recipe.seed)

    files = train_files(job.folder("dataset"))
    refuse_empty(files, job.folder("dataset"))
    from teacher.bundled import model_folder

    where = model_folder(settings.base)
    tokenizer = load_tokenizer(where, settings)
    config = load_config(where, settings)
    preflight.check_positions(getattr(config.get_text_config(), "max_position_embeddings", None), settings)
    set_template(tokenizer, settings)
    end = end_of_turn(tokenizer, settings)
    set_padding(tokenizer, settings, end)
    preflight.check_padding(tokenizer, end)

    rendered = job.out / "rendered.arrow"
    tally = _render(tokenizer, end, files, settings, rendered)
    preflight.check_rows_left(tally, settings)
    if tally.over_length:
        say(f"train: {tally.over_length} of {tally.rows} rows are over {settings.max_length} tokens and left out")

    from transformers import set_seed

    set_seed(arguments.seed)  # before peft draws the adapter's weights
    model = load_model(where, config, settings)
    stops = stop_ids(tokenizer, model, end)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    trainer, resumed = _train(model, tokenizer, arguments, settings, rendered)

    training = _training_facts(job, settings, tally, trainer, arguments, resumed)
    _save(trainer.model, tokenizer, stops, settings, job.out)
    write_json(job.out / "training.json", training)
    write_whole(job.out / "README.md", student_card(job.recipe.name, settings, training))
    rendered.unlink()
    shutil.rmtree(checkpoints, ignore_errors=True)
    kept = ("base", "method", "tokens", "steps", "epochs", "final_loss", "device", "resumed_from")
    facts = {name: training[name] for name in kept}
    dropped = {"over_length": tally.over_length} if tally.over_length else {}
    return Outcome(Counts(tally.rows, tally.kept, dropped), facts)


def _need_training_extra() -> None:
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


def _quiet() -> None:
    """Leave the terminal to Retort's own progress."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def sft_arguments(settings: TrainSettings, checkpoints: Path, seed: int) -> Any:
    """Return the SFTConfig: Retort's few defaults, the recipe's `sft` over them, and what Retort holds fixed.

    Raises:
        UserError: TRL refuses a value.
    """
    import torch
    from trl import SFTConfig

    defaults: dict[str, Any] = {
        "logging_steps": 1,
        "save_steps": 0.1,  # a tenth of the run is the most that a kill costs
        "save_total_limit": 2,  # so that one is whole while the other is written
        "bf16": settings.dtype == "bfloat16",
    }
    try:
        return SFTConfig(
            **{**defaults, **settings.sft},
            output_dir=str(checkpoints),
            seed=seed % 2**32,
            max_length=None,  # rows over length are already out
            dataset_kwargs={"skip_prepare_dataset": True},
            completion_only_loss=False,  # the labels say what is trained
            include_num_input_tokens_seen="non_padding",
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"train.sft: TRL refuses it ({error})", "correct that value (see trl.SFTConfig)") from error


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


def _render(tokenizer: Any, end: int, files: list[Path], settings: TrainSettings, path: Path) -> Tally:
    first = True

    def check(row: Rendered, messages: list[Message], uuid: str) -> None:
        nonlocal first
        preflight.check_row(tokenizer, row, messages, end, settings, uuid)
        if first:
            preflight.check_prompt(tokenizer, messages, uuid)
            first = False

    return render_all(tokenizer, read_examples(files), settings, check, path)


def _train(
    model: Any, tokenizer: Any, arguments: Any, settings: TrainSettings, rendered: Path
) -> tuple[Any, int | None]:
    """Train and return the trainer, and the step it resumed from (None for a run from the start)."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerState
    from trl import SFTTrainer

    checkpoint = newest_whole(Path(arguments.output_dir))
    watch = make_watch()
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_file(str(rendered)),
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
    job: Job, settings: TrainSettings, tally: Tally, trainer: Any, arguments: Any, resumed: int | None
) -> dict[str, Any]:
    """Return what training.json holds. Seconds are of stepping, tries that were killed included."""
    log = loss_log(trainer.state.log_history)
    return {
        "base": settings.base,
        "revision": settings.revision,
        "method": settings.method,
        "chat_template": settings.chat_template,
        "seed": job.recipe.seed,
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
        "epochs": round(trainer.state.epoch or 0.0, 4),
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
