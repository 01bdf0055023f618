"""Preflight: each refusal, with the words that the user sees."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.records import Message
from students import preflight
from students.base import set_padding
from students.render import IGNORED, Rendered, Tally, end_of_turn, render
from students.settings import TrainSettings

MESSAGES: list[Message] = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>\none\n</think>\n\n2"},
]
TEMPLATE = """{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}
{%- if m['role'] == 'assistant' -%}BODY{%- else -%}{{- m['content'] + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""


def refusal(tokenizer: Any, body: str | None = None, row: Rendered | None = None, whole: str | None = None) -> str:
    """The line with which check_row refuses the row, rendered with a template's assistant part or given."""
    end = end_of_turn(tokenizer, TrainSettings())
    if body is not None:
        tokenizer.chat_template = TEMPLATE.replace("BODY", body)
    if whole is not None:
        tokenizer.chat_template = whole
    with pytest.raises(UserError) as caught:
        found = row or render(tokenizer, MESSAGES)
        preflight.check_row(tokenizer, found, MESSAGES, end, TrainSettings(), "row-1")
    assert "\n" not in caught.value.line()
    return caught.value.line()


def test_a_good_row_passes(tokenizer: Any) -> None:
    end = end_of_turn(tokenizer, TrainSettings())
    preflight.check_row(tokenizer, render(tokenizer, MESSAGES), MESSAGES, end, TrainSettings(), "row-1")
    preflight.check_prompt(tokenizer, MESSAGES, "row-1")


def test_end_of_turn_outside_the_labels(tokenizer: Any) -> None:
    body = r"{%- generation -%}{{- m['content'] -}}{%- endgeneration -%}{{- '<|im_end|>\n' -}}"
    assert refusal(tokenizer, body) == (
        r"row row-1: the labels lack the end-of-turn token '<|im_end|>' at: "
        r"... [i] [n] [k] [>] [\n] [\n] [2] <|im_end|> \n: "
        "set train.chat_template = 'chatml'; or correct the template's generation markers"
    ).replace("... [i]", "... [h] [i]")


def test_a_template_that_deletes_the_thought(tokenizer: Any) -> None:
    body = (
        r"{%- generation -%}{{- m['content'].split('</think>')[-1] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    )
    line = refusal(tokenizer, body)
    assert line.startswith("row row-1: the thought (<think>) in the message is missing from the labels at: ... ")
    assert r"[\n] [\n] [2] [<|im_end|>] \n: set train.chat_template = 'chatml', which keeps thoughts" in line


def test_a_user_turn_in_the_labels(tokenizer: Any) -> None:
    whole = (
        r"{%- generation -%}{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] "
        r"+ '<|im_end|>' -}}{%- endfor -%}{%- endgeneration -%}"
    )
    line = refusal(tokenizer, whole=whole)
    assert line.startswith(
        "row row-1: the labels hold a user's turn that the assistant did not say, at: [<|im_start|>] [u] [s] [e] [r] "
    )


def test_the_header_in_the_labels(tokenizer: Any) -> None:
    row = render(tokenizer, MESSAGES)
    first = next(place for place, label in enumerate(row.labels) if label != IGNORED)
    labels = list(row.labels)
    labels[first - 3 : first] = row.input_ids[first - 3 : first]
    line = refusal(tokenizer, row=Rendered(row.input_ids, labels))
    assert "the labels hold text that the assistant did not say" in line
    assert r"[n] [t] [\n] [<] [t]" in line


def test_nothing_marked(tokenizer: Any) -> None:
    row = render(tokenizer, MESSAGES)
    line = refusal(tokenizer, row=Rendered(row.input_ids, [IGNORED] * len(row.labels)))
    assert line.startswith("row row-1: 0 trained spans for 1 turns of the assistant in: ... ")


def test_a_doubled_tag(tokenizer: Any) -> None:
    body = r"{{- '<think>\n' -}}{%- generation -%}{{- m['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    line = refusal(tokenizer, body)
    assert line.startswith("row row-1: the thought is opened twice: ")
    assert r"<think>\n<think>\none" in line


def test_a_prompt_that_is_not_how_rows_begin(tokenizer: Any) -> None:
    tokenizer.chat_template += "{%- if add_generation_prompt -%}{{- '<think></think>' -}}{%- endif -%}"
    with pytest.raises(UserError, match="row-1: the template's prompt is not how it begins the trained row"):
        preflight.check_prompt(tokenizer, MESSAGES, "row-1")


def test_no_rows_left() -> None:
    with pytest.raises(UserError) as caught:
        preflight.check_rows_left(Tally(rows=4, over_length=4, longest_seen=900), TrainSettings(max_length=64))
    assert caught.value.line() == (
        "no rows left to train on: all 4 are longer than train.max_length = 64 (the longest has 900 tokens): "
        "raise train.max_length; or sample with a smaller sampling.max_tokens"
    )


def test_too_few_positions() -> None:
    settings = TrainSettings(base="some/base", max_length=32768)
    preflight.check_positions(32768, settings)
    preflight.check_positions(None, settings)
    with pytest.raises(UserError, match="some/base has 4096 positions, fewer than train.max_length = 32768: set"):
        preflight.check_positions(4096, settings)


def test_padding_is_moved_off_the_end_of_turn(tokenizer: Any) -> None:
    end = end_of_turn(tokenizer, TrainSettings())
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"
    with pytest.raises(UserError, match=r"padding token '<\|im_end\|>' is also the only token that ends a turn"):
        preflight.check_padding(tokenizer, end)
    set_padding(tokenizer, TrainSettings(), end)
    assert tokenizer.pad_token == "<|endoftext|>"
    preflight.check_padding(tokenizer, end)


def test_an_unknown_padding_token(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"train.pad_token = '<pad>' is not a token of some/base: choose one"):
        set_padding(tokenizer, TrainSettings(base="some/base", pad_token="<pad>"), 0)
