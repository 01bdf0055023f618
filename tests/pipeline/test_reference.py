"""`retort settings`: every key of every section, with default and explanation, as the classes have them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.recipe import SECTIONS
from pipeline.reference import reference


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_section_is_there_once(section: str) -> None:
    module, _, name = SECTIONS[section].partition(":")
    fields = getattr(importlib.import_module(module), name).model_fields
    told = re.findall(r"^(\w+) = ", reference(section), re.MULTILINE)
    assert told == list(fields)


def test_kind_default_limits_and_words_are_told() -> None:
    text = reference("sampling")
    assert "undecided_share = 0.2    (float; > 0, <= 1)\n    With `keep`: pause a domain where more" in text
    # Inherited, nested in a list and in a table of names.
    assert "temperature = " in text
    assert "sources[].path" not in reference("problems") and "    Each has the settings above" in reference("problems")
    assert "domains.NAME.sampling = {}" in reference("teacher")
    assert "benchmarks[].name = to be set" in reference("eval")


def test_one_that_is_not_there_is_told_with_the_nearest(retort: Callable[..., Any]) -> None:
    done = retort("settings", "samplin")
    assert (done.returncode, done.stderr) == (2, "retort: no section [samplin] in a recipe: did you mean 'sampling'?\n")
    assert retort("settings", "verify").stdout.startswith("[verify]\n")
    with pytest.raises(UserError):
        reference("x")
