"""The settings reference, read off the settings' own classes: key, default, kind, with the words below it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.errors import UserError
from pipeline.recipe import SECTIONS, near

WIDTH = 100
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def reference(section: str = "") -> str:
    """Return the settings of a section of a recipe, or of all of them, as text: key, default, kind, explanation.

    Raises:
        UserError: no such section.
    """
    if section and section not in SECTIONS:
        raise UserError(f"no section [{section}] in a recipe", near(section, list(SECTIONS)))
    return "\n\n".join(map(_section, [section] if section else SECTIONS))


def _section(name: str) -> str:
    module, _, attribute = SECTIONS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    return "\n".join([f"[{name}]", *_wrapped(kind.__doc__ or "", "# "), *_fields(kind, list(kind.model_fields), "")])


def _fields(kind: type[BaseModel], names: list[str], before: str) -> Iterator[str]:
    words = _words(kind)
    for name in names:
        field = kind.model_fields[name]
        default = "to be set" if field.is_required() else _plain(field.get_default(call_default_factory=True))
        yield f"{before}{name} = {default}    ({_kind(field)})"
        yield from _wrapped(words.get(name, ""), "    ")
        for model in _models(field.annotation):
            own = [inner for inner in model.model_fields if inner not in kind.model_fields]
            if 2 * len(own) < len(model.model_fields):
                yield f"    Each has the settings above{' and:' if own else '.'}"
            outer = get_origin(field.annotation)
            inside = "[]" if outer is list else ".NAME" if outer is dict else ""
            yield from _fields(model, own, f"{before}{name}{inside}.")


def _words(kind: type[BaseModel]) -> dict[str, str]:
    """Return what stands below each field in the source of a class and of those it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = str(ast.literal_eval(below.value))
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _kind(field: FieldInfo) -> str:
    text = inspect.formatannotation(field.annotation).replace("typing.", "")
    limits = ", ".join(
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in SIGNS.items()
        if getattr(limit, name, None) is not None
    )
    # Names without the modules that they come from.
    text = "".join(part.rpartition(".")[2] for part in _pieces(text))
    return f"{text}; {limits}" if limits else text


def _pieces(text: str) -> Iterator[str]:
    piece = ""
    for character in text:
        if character.isalnum() or character in "._":
            piece += character
        else:
            yield from (piece, character)
            piece = ""
    yield piece


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{}"
    return "not set" if value is None else json.dumps(value, default=str, ensure_ascii=False)


def _wrapped(text: str, before: str) -> list[str]:
    paragraphs = " ".join(text.split())
    return textwrap.wrap(paragraphs, WIDTH, initial_indent=before, subsequent_indent=before)
