"""What the driver works on: requests with how they fared, and where completions become durable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.engine import Request
from pipeline.errors import UserError


class Sink(Protocol):
    """Where completions become durable: a `pipeline.journal.Journal`, or several behind one face."""

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Make rows durable."""

    def sync_if_due(self) -> None:
        """Flush to the disk where that is due."""

    def nearly_full(self) -> UserError | None:
        """Return why nothing more should be asked for: the disk has room left for what is on its way alone."""


@dataclass(order=True)
class Job:
    """A request and how it fared; the order is that of the waiting."""

    ready: float
    number: int
    request: Request = field(compare=False)
    attempt: int = field(default=0, compare=False)
    troubles: int = field(default=0, compare=False)
    charged: float = field(default=0.0, compare=False)
    """Tokens that the limit a minute was charged for it."""
