"""Whether a recipe's sources can give what its quota asks for: prompts x expected yield x rows kept a problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from teacher.source_settings import ProblemsSettings


@dataclass(frozen=True)
class Cover:
    """What a domain is to have and what its sources are expected to give."""

    domain: str
    quota: int
    prompts: int
    expected: int
    """Rows, as the sources' expected yields have it."""
    unknown: tuple[str, ...]
    """Sources that do not say how many prompts they hold or what these yield."""
    undecided: tuple[str, ...] = ()
    """Sources that nothing can be accepted of yet, for want of a reference or of a verifier: no rows are expected of
    them."""

    @property
    def short(self) -> int:
        """Return how many rows are missing, 0 where none is."""
        return max(0, self.quota - self.expected)


def coverage(settings: ProblemsSettings, rows_a_problem: Mapping[str, int]) -> list[Cover]:
    """Return a line for each domain with a quota, in the order of the quota.

    Args:
        rows_a_problem: by domain, how many traces of a problem the dataset takes, at most.
    """
    found = []
    for domain, quota in settings.quota.items():
        sources = [source for source in settings.sources or [settings] if source.domain == domain]
        undecided = [source for source in sources if not (source.reference and source.decided)]
        known = [source for source in sources if source.prompts and source.expected_yield and source not in undecided]
        prompts = sum(min(source.prompts or 0, source.limit or source.prompts or 0) for source in known)
        expected = sum(
            min(source.prompts or 0, source.limit or source.prompts or 0) * (source.expected_yield or 0.0)
            for source in known
        )
        unknown = tuple(source.name for source in sources if source not in known and source not in undecided)
        names = tuple(source.name for source in undecided)
        found.append(Cover(domain, quota, prompts, int(expected * rows_a_problem[domain]), unknown, names))
    return found
