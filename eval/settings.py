"""Settings of the section [eval]."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from eval.benchmarks import BENCHMARKS
from pipeline.recipe import Settings
from teacher.settings import AskSettings, EngineSettings

Role = Literal["base", "student", "arms", "teacher"]
"""`arms`: every student that the stage `arms` trained, each a role of its own (`answers_only-1`, ...)."""

# DeepSeek-R1's protocol (arXiv 2501.12948v2): temperature 0.6, top-p 0.95, 32,768 output tokens, no
# system prompt, the assistant's turn opened with <think> and a newline.
PROTOCOL: dict[str, Any] = {
    "samples": 1,  # k of each benchmark stands in for it
    "temperature": 0.6,
    "top_p": 0.95,
    "max_tokens": 32_768,
    "prefill": "<think>\n",
}
PROMPT_ROOM = 2_048  # tokens an engine holds beside max_tokens unless the recipe says; ours, ample for one question


class EvalSamplingSettings(AskSettings):
    """How questions are put: the sampling settings, with the published protocol as defaults."""

    @model_validator(mode="before")
    @classmethod
    def _protocol(cls, given: Any) -> Any:
        """Fill in PROTOCOL where the recipe says nothing, key by key."""
        if not isinstance(given, dict):
            return given
        if given.get("samples", 1) != 1:
            raise ValueError("'samples' is not set here: set k on each of eval.benchmarks")
        return {**PROTOCOL, **given}


class BenchmarkSettings(BaseModel):
    """One benchmark: which questions, how many of them, and how many samples of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: str | None = None
    """A local JSONL file to read instead of the Hub."""
    limit: int | None = Field(default=None, ge=1)
    """Take this many questions, drawn by the recipe's seed; a larger limit keeps the smaller one's."""
    k: int = Field(default=1, ge=1)
    """Samples per question; pass@1 is their mean."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BENCHMARKS:
            near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.4)
            ways = f"did you mean '{near[0]}'?" if near else f"valid here: {', '.join(sorted(BENCHMARKS))}"
            raise ValueError(f"no such benchmark; {ways}")
        return name


class EvalSettings(Settings):
    """Which models answer which benchmarks, and how."""

    section: ClassVar[str] = "eval"
    aside: ClassVar[frozenset[str]] = frozenset({"engine"})

    benchmarks: list[BenchmarkSettings] = Field(default=[BenchmarkSettings(name="gsm8k")], min_length=1)
    models: list[Role] = Field(default=["base", "student"], min_length=1)
    sampling: EvalSamplingSettings = Field(default_factory=EvalSamplingSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings, validate_default=True)
    """How base and student are served; its `max_model_len` is by default room for `max_tokens`."""

    @field_validator("benchmarks")
    @classmethod
    def _each_once(cls, benchmarks: list[BenchmarkSettings]) -> list[BenchmarkSettings]:
        names = [benchmark.name for benchmark in benchmarks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return benchmarks

    @field_validator("models")
    @classmethod
    def _each_model_once(cls, models: list[Role]) -> list[Role]:
        if len(set(models)) < len(models):
            raise ValueError("a model is named twice")
        return models

    @field_validator("engine", mode="before")
    @classmethod
    def _room(cls, given: Any, info: ValidationInfo) -> Any:
        sampling = info.data.get("sampling")
        if isinstance(given, EngineSettings):
            given = given.model_dump(exclude_unset=True)
        if sampling is None or not isinstance(given, dict):
            return given
        given = {"max_model_len": sampling.max_tokens + PROMPT_ROOM, **given}
        length = given["max_model_len"]
        if isinstance(length, int) and length <= sampling.max_tokens:
            raise ValueError(
                f"max_model_len {length} leaves no room for a prompt beside sampling.max_tokens {sampling.max_tokens}; "
                "raise the one or lower the other"
            )
        return given

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the result; those that sampling puts aside are left out too.

        `max_tokens` stays in even where the pool's identities leave it out: it decides which answers
        are cut short, so it changes a score.
        """
        found = super().result_settings()
        found["sampling"] = {**self.sampling.result_settings(), "max_tokens": self.sampling.max_tokens}
        return found
