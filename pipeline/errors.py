"""The one exception a user is meant to see."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: printed as one line (what, where, the ways out), exit status 2.

    Args:
        what: what is wrong and where, without a full stop at the end.
        ways: what the user may do about it, each a short imperative.
    """

    def __init__(self, what: str, *ways: str) -> None:
        self.what = what
        self.ways = ways
        super().__init__(self.line())

    def line(self) -> str:
        """The message as printed: one line, the ways out joined by "or"."""
        text = " ".join(self.what.split())
        if self.ways:
            text += ": " + "; or ".join(" ".join(way.split()) for way in self.ways)
        return text
