"""What sampling costs: by a provider's price of tokens, or by the hours of one's own GPUs."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.files import write_json
from pipeline.records import CUT_OFF, State
from pipeline.tally import Tally

BOOK = Path(__file__).with_name("prices.toml")
MILLION = 1_000_000


class PriceSettings(BaseModel):
    """What the teacher costs. Where nothing is set, the price book is asked for the model's name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input: float | None = Field(None, ge=0)
    """Dollars per million tokens of prompts."""
    output: float | None = Field(None, ge=0)
    """Dollars per million tokens of completions."""
    gpus: int = Field(0, ge=0)
    """GPUs that serve it, for GPU-hours."""
    gpu_hour: float | None = Field(None, ge=0)
    """Dollars an hour of one GPU."""

    @model_validator(mode="after")
    def _counted(self) -> PriceSettings:
        if self.gpu_hour is not None and not self.gpus:
            raise ValueError("gpu_hour needs gpus, how many of them serve the model")
        return self


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, where these have a price; GPUs and dollars an hour of each, where they are rented."""

    input: float | None
    output: float | None
    gpus: int
    gpu_hour: float | None

    def of_tokens(self, prompt: int, completion: int) -> float | None:
        """Return the dollars that these tokens cost, None where tokens have no price."""
        if self.input is None and self.output is None:
            return None
        return ((self.input or 0.0) * prompt + (self.output or 0.0) * completion) / MILLION


def price_of(settings: PriceSettings, *names: str) -> Price:
    """Return the recipe's price, else the price book's for one of the model's names."""
    if settings.input is None and settings.output is None and not settings.gpus:
        for name in names:
            if found := book().get(name.lower().rpartition("/")[2]):
                return Price(found["input"], found["output"], 0, None)
    return Price(settings.input, settings.output, settings.gpus, settings.gpu_hour)


@cache
def book() -> dict[str, dict[str, Any]]:
    """Return the price book: input and output in dollars per million tokens, and the source, by lower-case name."""
    return {name.lower(): row for name, row in tomllib.loads(BOOK.read_text()).items()}


@dataclass(frozen=True)
class Spent:
    """What a run of sampling has cost so far; dollars None where nothing has a price."""

    tokens: int
    gpu_hours: float
    dollars: float | None

    @classmethod
    def of(cls, tally: Tally, seconds: float, price: Price) -> Spent:
        """Return what a tally and the seconds it took come to, with what broken streams had sent."""
        hours = price.gpus * seconds / 3600
        written = tally.completion_tokens + tally.wasted
        dollars = price.of_tokens(tally.prompt_tokens, written)
        if price.gpu_hour is not None:
            dollars = (dollars or 0.0) + hours * price.gpu_hour
        return cls(tally.prompt_tokens + written, hours, dollars)

    @classmethod
    def kept_in(cls, path: Path) -> Spent:
        """Return what `keep_in` left in a file; nothing spent where there is none."""
        try:
            found = json.loads(path.read_text())
            return cls(int(found["tokens"]), float(found["gpu_hours"]), found["dollars"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(0, 0.0, None)

    def keep_in(self, path: Path) -> None:
        """Leave it in a file."""
        write_json(path, asdict(self))

    def __add__(self, other: Spent) -> Spent:
        known = [one.dollars for one in (self, other) if one.dollars is not None]
        return Spent(self.tokens + other.tokens, self.gpu_hours + other.gpu_hours, sum(known) if known else None)


USES = ("accepted", "wrong", "undecided", "truncated", "cut", "unreadable")


def uses(rows: Iterable[Mapping[str, Any]], states: Mapping[str, tuple[str, str | None]]) -> dict[str, Counter[str]]:
    """Return where traces and their completion tokens went, by USES: {"traces": ..., "tokens": ...}.

    Args:
        rows: traces with id, finish_reason and completion_tokens.
        states: by trace id, its state and the readability rule that drops it.
    """
    found: dict[str, Counter[str]] = {"traces": Counter(), "tokens": Counter()}
    for row in rows:
        state, reason = states.get(row["id"], (State.UNDECIDED, None))
        if row["finish_reason"] in CUT_OFF:
            use = "truncated" if row["finish_reason"] == "length" else "cut"
        elif state != State.CORRECT:
            use = str(state)
        else:
            use = "unreadable" if reason else "accepted"
        found["traces"][use] += 1
        found["tokens"][use] += row["completion_tokens"]
    return found
