"""Settings of the section [problems]: sources, and how their rows are read."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, field_validator, model_validator

from filtering.verifiers import VERIFIERS
from pipeline.recipe import Settings
from teacher.families import FAMILIES


class SourceSettings(BaseModel):
    """One source of problems, and how its rows are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str = "openai/gsm8k"
    """A Hub dataset id, `reasoning-gym`, or `run:NAME`: the accepted traces of that run, to be written anew (see
    teacher/drafts.py; columns and domain are theirs). With `path` set, only the name written into the records, which is
    the file's where nothing is set here."""
    path: str = ""
    """A local file to read instead: .jsonl, .json, .csv, .tsv or .parquet, the first four also with .gz."""
    task: str = ""
    """With `reasoning-gym`: the task; `limit` problems are drawn from it by the recipe's seed."""
    task_config: dict[str, JsonValue] = {}
    """With `reasoning-gym`: the task's own settings."""
    config: str = "main"
    split: str = "train"
    only: dict[str, list[str | int | bool]] = {}
    """Columns with the values that a row must have to be taken: {level = [4, 5]}."""
    question: str = "question"
    """The column with the question, or with a list of messages; a dot goes into a table: `extra.question`."""
    reference: str = "answer"
    """The column with the reference answer; "" where there is none (and a judge decides)."""
    response: str = ""
    """The column with an answer that is there already, a thought in think tags before it or none: the row becomes a
    problem and a finished trace, and is not asked again. With a list of messages that ends in the assistant's turn,
    the same column as `question`."""
    reference_after: str = ""
    """Where set, the reference is what follows the last such mark (GSM8K: '####')."""
    domain: Literal["math", "code", "stem", "logic", "general"] = "math"
    domain_column: str = ""
    """A column that names the domain, row by row."""
    license: str = "unknown"
    license_column: str = ""
    verifier: str = "math"
    verified: bool | None = None
    """Whether this mapping was ever run against the source itself; false is said when it is read."""
    why: str = ""
    """Why this source is in the mix."""
    decided: bool = True
    """Whether a verifier can decide its rows; false where none can yet: no accepted rows are expected of it."""
    prompts: PositiveInt | None = None
    """How many problems the source holds, as its card says: for planning alone."""
    expected_yield: float | None = Field(None, gt=0, le=1)
    """The share of these that is expected to give accepted traces: for planning alone."""
    limit: PositiveInt | None = None
    """Take so many problems, by `order`."""
    order: Literal["given", "shuffled", "shortest"] = "given"
    """`shortest`: by the length of the reference solution, a stand-in for difficulty."""

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return self.path or (f"{self.source}:{self.task}" if self.task else self.source)

    @property
    def origin(self) -> str:
        """Return what the records name as their source: of a file without one, the file's name."""
        if self.path and "source" not in self.model_fields_set:
            return Path(self.path).name
        return self.name if self.task else self.source

    @field_validator("verifier")
    @classmethod
    def _known_verifier(cls, verifier: str) -> str:
        if verifier not in VERIFIERS:
            close = difflib.get_close_matches(verifier, VERIFIERS, n=1, cutoff=0.5)
            ways = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(sorted(VERIFIERS))}"
            raise ValueError(f"no such verifier; {ways}")
        return verifier


class ProblemsSettings(SourceSettings, Settings):
    """Where problems come from: one source, written here, or several in [[problems.sources]]."""

    section: ClassVar[str] = "problems"
    aside: ClassVar[frozenset[str]] = frozenset({"quota"})

    sources: list[SourceSettings] = []
    """Several sources; the settings of one, beside them, are then the order and the limit of the whole."""
    quota: dict[Literal["math", "code", "stem", "logic", "general"], PositiveInt] = {}
    """How many rows of each domain the set is to have; `retort plan` says what is short."""
    generate: dict[str, PositiveInt] = {}
    """Families of `teacher/families/` with how many problems to draw from each by the recipe's seed, instead of
    reading any: {sums = 300}. Held-out ones, which the benchmarks of the same names ask, are never drawn."""

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change the problems; a run whose accepted traces have changed is another source."""
        from teacher.drafts import drafts_revision
        from teacher.models import RUN

        runs = {one.source for one in self.sources or [self] if one.source.startswith(RUN) and not one.path}
        drafts = {source: drafts_revision(source) for source in sorted(runs)}
        return {**super().result_settings(), **({"drafts": drafts} if drafts else {})}

    @field_validator("generate")
    @classmethod
    def _families(cls, generate: dict[str, int]) -> dict[str, int]:
        for name in generate:
            if name not in FAMILIES:
                close = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.5)
                ways = f"did you mean '{close[0]}'?" if close else f"valid here: {', '.join(FAMILIES)}"
                raise ValueError(f"no family '{name}'; {ways}")
        return generate

    @model_validator(mode="after")
    def _one_or_several(self) -> ProblemsSettings:
        alone = sorted(self.model_fields_set & ({*SourceSettings.model_fields} - {"limit", "order"}))
        if self.sources and alone:
            raise ValueError(f"{', '.join(alone)} beside sources: write it into one of [[problems.sources]]")
        return self
