"""The tokenizer that both bundled models share: a byte-level BPE whose every word and small number is one token.

It has no merges: a piece of text that stands in the vocabulary is one token, any other falls into its
bytes, so that every text can be read and written back exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>")
"""Tokens of their own that are text all the same: decoding keeps them."""
PIECE = r"\p{Han}| ?[A-Za-z]+| ?\d+| ?[^\s\p{L}\d]+|\n\n|\n {3}|\s"
"""A word or a number carries the space before it; indentation is one piece."""
NUMBERS = 100
"""Each whole number below this is one token (measured to be what lets a model this small do sums)."""


def build(texts: Iterable[str], seen: int = 3) -> Any:
    """Return a tokenizer (transformers' PreTrainedTokenizerFast) over the pieces met `seen` times in the texts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in pieces.pre_tokenize_str(text))
    numbers = [piece for n in range(NUMBERS) for piece, _ in pieces.pre_tokenize_str(f" {n}")]
    words = sorted(piece for piece, count in counts.items() if count >= seen)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = list(dict.fromkeys([*SPECIAL, *MARKS, *alphabet, *numbers, *words]))
    model = models.BPE(
        vocab={piece: place for place, piece in enumerate(vocabulary)}, merges=[], ignore_merges=True, dropout=None
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(MARKS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
