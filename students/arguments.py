"""What TRL is told: Retort's few defaults, the recipe's `train.sft`, and what Retort holds fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from students.settings import TrainSettings

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


ORDERED = {"num_train_epochs": 1.0, "max_steps": -1, "train_sampling_strategy": "sequential"}
"""Rows that come in the order in which they are to be seen, once."""


def sft_arguments(settings: TrainSettings, checkpoints: Path, seed: int, ordered: bool = False) -> Any:
    """Return the SFTConfig: Retort's few defaults, the recipe's `sft` over them, and what Retort holds fixed.

    Args:
        ordered: the rows come in the order in which they are to be seen, once.

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
            **{**defaults, **settings.sft, **(ORDERED if ordered else {})},
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
