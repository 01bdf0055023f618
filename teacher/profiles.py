"""Engine profiles: how a known teacher is served on known GPUs, and the arithmetic that justifies it."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("profiles")
GB = 1e9
GIB = 2**30
OVERHEAD_GIB = 5.0
"""Of each GPU: activations, graphs and communication buffers; a round figure, vLLM measures its own at the start."""


@dataclass(frozen=True)
class Profile:
    """A profile as it stands in its file."""

    name: str
    model: str
    gpu: str
    gpus: int
    gib: float
    weights_spread_gb: float
    weights_each_gb: float
    kv_bytes: int
    kv_whole_on_each: bool
    mean_tokens: int
    """Of a sequence in flight. Where lengths spread as wide as their mean, as thoughts' do, what is in flight has come
    as far, in the mean, as a whole one is long."""
    why: str
    engine: dict[str, Any]
    cache_gib: float | None = None
    """The cache's own size, where it is set and not what is left."""

    @property
    def room_gib(self) -> float:
        """Return the memory for the cache on each GPU: as set, or what is left."""
        if self.cache_gib is not None:
            return self.cache_gib
        weights = (self.weights_spread_gb / self.gpus + self.weights_each_gb) * GB / GIB
        return float(self.gib * self.engine["gpu_memory"] - weights - OVERHEAD_GIB)

    @property
    def tokens_in_flight(self) -> int:
        """Return how many tokens the caches of all GPUs hold together."""
        copies = self.engine.get("tensor_parallel", 1) if self.kv_whole_on_each else 1
        return int(self.room_gib * GIB * self.gpus / (self.kv_bytes * copies))

    @property
    def sequences_asked(self) -> int:
        """Return how many sequences may run at once over all data-parallel groups."""
        return int(self.engine["max_num_seqs"] * self.engine.get("data_parallel", 1))


def names() -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def profile(name: str) -> Profile:
    """Return a profile.

    Raises:
        ValueError: there is none of that name.
    """
    path = FOLDER / f"{name}.toml"
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        raise ValueError(
            f"no profile '{name}'; " + (f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names())}")
        )
    return Profile(name, **tomllib.loads(path.read_text()))
