"""The tokenizer that both bundled models share: bytes, with every word and small number of the corpora added whole.

A piece of text that stands in the vocabulary is one token, any other falls into its bytes, so that every
text can be read and written back exactly. The words are added tokens rather than the vocabulary of a
BPE: transformers rebuilds the tokenizer in the folder of a Qwen2 model with Qwen's own splitting, which
takes numbers apart, and leaves added tokens as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>")
"""Tokens of their own that are text all the same: decoding keeps them."""
PIECE = re.compile(r"<\|\w+\|>|</?think>|[一-鿿]| ?[A-Za-z]+| ?\d+| ?(?:(?!<)[^\sA-Za-z\d一-鿿])+|<|\n {3}|\s")
"""A word or a number carries the space before it; indentation is one piece.

An empty line is two tokens: a turn that is opened with "<think>" and one newline, as benchmarks do, must
be able to go on to an empty thought.
"""
NUMBERS = 100
"""Each whole number below this is one token (measured to be what lets a model this small do sums)."""


def build(texts: Iterable[str], seen: int = 3) -> Any:
    """Return a tokenizer (transformers' Qwen2Tokenizer) over the pieces met `seen` times in the texts."""
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(PIECE.findall(text))
    words = sorted(piece for piece, count in counts.items() if count >= seen and len(piece.encode()) > 1)
    pieces = dict.fromkeys([*MARKS, *(f" {number}" for number in range(NUMBERS)), *words])
    alphabet = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=alphabet, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIAL])
    tokenizer.add_tokens(
        [AddedToken(piece, special=False, normalized=False) for piece in pieces if piece not in SPECIAL]
    )
    return tokenizer
