"""How requests are driven, and what driving them came to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DriveSettings:
    """How requests are driven; none of these changes what comes back, but that loops are cut."""

    concurrency: int = 64
    """Requests in flight at once, at most, over all engines."""
    timeout_s: float = 1800.0
    """For one answer, whole."""
    stall_s: float = 120.0
    """How long a stream that has begun may send nothing."""
    attempts: int = 8
    patience_s: float = 120.0
    """How long no endpoint may answer at all before the run ends."""
    stream: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass
class Tally:
    """What a drive did: requests finished, retries, tokens, and what was given up, by request id."""

    finished: int = 0
    came: int = 0
    """Completions that came back, durable or about to be; tokens are of these."""
    retries: int = 0
    seconds: float = 0.0
    """From the first request to the last completion."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    continued: int = 0
    """Completions that went on from where their budget had cut them off."""
    cut: int = 0
    """Streams cut for a loop; they are among those finished."""
    wasted: int = 0
    """Tokens, about, of streams that broke and were asked again."""
    saved: int = 0
    """Tokens that these would have cost more, had each gone on to its max_tokens."""
    given_up: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        both = {name: getattr(self, name) + getattr(other, name) for name in vars(self) if name != "given_up"}
        return Tally(**both, given_up={**self.given_up, **other.given_up})
