"""Settings of the sections [verify], [filter] and [dataset]."""

from __future__ import annotations

import difflib
import inspect
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from filtering import rules as rules_module
from filtering import verifiers
from filtering.rules import RULES
from pipeline.recipe import Settings


class VerifySettings(Settings):
    """How traces are judged right, wrong or undecided."""

    section: ClassVar[str] = "verify"
    aside: ClassVar[frozenset[str]] = frozenset({"workers"})

    workers: NonNegativeInt = 0
    """Worker processes for symbolic comparison and for programs; 0 takes one a core."""
    timeout_s: float = Field(10.0, gt=0)
    """Longest time for one comparison, then the verdict is undecided; a program's processor time, then it is wrong."""

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change verdicts, the verifiers' version among them."""
        return {**super().result_settings(), "version": verifiers.VERSION}


class FilterSettings(Settings):
    """The readability rules, in order; each a table with `rule`, thresholds, and `source` for where they come from."""

    section: ClassVar[str] = "filter"

    rules: list[dict[str, Any]] = [
        {"rule": "truncated"},
        {"rule": "thought_missing"},
        {"rule": "thought_unclosed"},
        {"rule": "answer_missing"},
        {"rule": "language_mixing"},
        {"rule": "repetition"},
        {"rule": "long_paragraph"},
        {"rule": "code_fence"},
    ]

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that change what is dropped, the rules' version among them."""
        return {**super().result_settings(), "version": rules_module.VERSION}

    @field_validator("rules")
    @classmethod
    def _known(cls, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, rule in enumerate(rules):
            name = rule.get("rule")
            if not isinstance(name, str) or name not in RULES:
                raise ValueError(f"rule {number + 1}: no rule '{name}'; {_near(str(name), list(RULES))}")
            parameters = dict(list(inspect.signature(RULES[name]).parameters.items())[2:])
            for key, value in rule.items():
                if key in ("rule", "source"):
                    continue
                if key not in parameters:
                    raise ValueError(f"rule '{name}' has no threshold '{key}'; {_near(key, list(parameters))}")
                whole = isinstance(parameters[key].default, int)
                if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value <= 0:
                    kind = "whole number" if whole else "number"
                    raise ValueError(f"rule '{name}': '{key}' must be a {kind} above 0, not {value!r}")
        return rules


class DatasetSettings(Settings):
    """Which accepted traces become rows."""

    section: ClassVar[str] = "dataset"

    max_per_problem: PositiveInt = 1
    select: Literal["shortest", "random"] = "shortest"
    rows_per_file: PositiveInt = 50_000


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid here: {', '.join(names) or 'none'}"
