"""Preflight: what must hold before a step is trained. Each check refuses with one line that shows the fault.

The row checks look at the labels that will be trained, not at the template's promises: a template
that deletes thoughts, or a mask that misses the end of turn, trains with a healthy-looking loss.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from pipeline.errors import UserError
from pipeline.records import Message
from students.render import IGNORED, Rendered, Tally
from students.settings import TrainSettings

NEAR = 8
TEMPLATE_WAYS = (
    "set train.chat_template = 'chatml'",
    "correct the template's generation markers",
)


def near(tokenizer: Any, row: Rendered, at: int) -> str:
    """Return the tokens around a position as text, the trained ones in [brackets]."""
    low, high = max(0, at - NEAR), min(len(row.input_ids), at + NEAR + 1)
    shown = []
    for token, label in zip(row.input_ids[low:high], row.labels[low:high], strict=True):
        text = repr(tokenizer.decode([token]))[1:-1]
        shown.append(f"[{text}]" if label != IGNORED else text)
    return f"{'... ' if low else ''}{' '.join(shown)}{' ...' if high < len(row.input_ids) else ''}"


def spans(row: Rendered) -> list[tuple[int, int]]:
    """Return the trained runs of a row as (first, one past the last)."""
    found = []
    start = None
    for place, label in enumerate([*row.labels, IGNORED]):
        if label != IGNORED and start is None:
            start = place
        elif label == IGNORED and start is not None:
            found.append((start, place))
            start = None
    return found


def check_rows_left(tally: Tally, settings: TrainSettings) -> None:
    """Refuse where every row was over length."""
    if tally.kept == 0:
        raise UserError(
            f"no rows left to train on: all {tally.rows} are longer than train.max_length = {settings.max_length} "
            f"(the longest has {tally.longest_seen} tokens)",
            "raise train.max_length",
            "sample with a smaller sampling.max_tokens",
        )


def check_positions(positions: int | None, settings: TrainSettings) -> None:
    """Refuse where the base has fewer positions than `max_length`."""
    if positions is not None and positions < settings.max_length:
        raise UserError(
            f"the base {settings.base} has {positions} positions, fewer than train.max_length = {settings.max_length}",
            f"set train.max_length = {positions}",
            "set train.rope.theta and train.rope.positions, which are saved with the student",
        )


def check_padding(tokenizer: Any, end: int) -> None:
    """Refuse where the padding token is also the only one that ends a turn."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == end:
        raise UserError(
            f"the padding token {tokenizer.pad_token!r} is also the only token that ends a turn, "
            f"so that engines and collators which hide padding hide the end of turn",
            "set train.pad_token to another special token of the base",
        )


def check_prompt(tokenizer: Any, messages: list[Message], uuid: str) -> None:
    """Refuse where a conversation does not begin with the prompt that the student will be given."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        return
    prompt = tokenizer.apply_chat_template(messages[:last], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    if not whole.startswith(prompt):
        at = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
        raise UserError(
            f"row {uuid}: the template's prompt is not how it begins the trained row: "
            f"{prompt[max(0, at - 30) : at + 30]!r} against {whole[max(0, at - 30) : at + 30]!r}",
            *TEMPLATE_WAYS,
        )


def check_marked(tokenizer: Any, row: Rendered, messages: list[Message], uuid: str) -> None:
    """Refuse a row with fewer or more trained runs than it has assistant's turns."""
    turns = sum(message["role"] == "assistant" for message in messages)
    found = len(spans(row))
    if not turns or found != turns:
        raise UserError(
            f"row {uuid}: {found} trained spans for {turns} turns of the assistant in: "
            f"{near(tokenizer, row, len(row.input_ids))}",
            *TEMPLATE_WAYS,
        )


def check_end_of_turn(tokenizer: Any, row: Rendered, end: int, uuid: str) -> None:
    """Refuse a row in which a turn of the assistant is not trained to end."""
    for _, stop in spans(row):
        if row.labels[stop - 1] != end:
            raise UserError(
                f"row {uuid}: the labels lack the end-of-turn token {tokenizer.decode([end])!r} at: "
                f"{near(tokenizer, row, stop)}",
                *TEMPLATE_WAYS,
            )


def check_thought(tokenizer: Any, row: Rendered, messages: list[Message], tag: str, uuid: str) -> None:
    """Refuse a row whose message holds a thought that the labels do not."""
    for (start, stop), message in zip(spans(row), _said(messages), strict=False):
        if tag and tag in message["content"] and tag not in tokenizer.decode(row.labels[start:stop]):
            raise UserError(
                f"row {uuid}: the thought ({tag}) in the message is missing from the labels at: "
                f"{near(tokenizer, row, start)}",
                "set train.chat_template = 'chatml', which keeps thoughts",
                "take the lines that delete the thought out of the template",
            )


def check_doubled(tokenizer: Any, row: Rendered, tag: str, uuid: str) -> None:
    """Refuse a row in which the template and the message both open the thought."""
    if not tag:
        return
    text = tokenizer.decode(row.input_ids)
    found = re.search(rf"{re.escape(tag)}\s*{re.escape(tag)}", text)
    if found:
        raise UserError(
            f"row {uuid}: the thought is opened twice: {text[max(0, found.start() - 40) : found.end() + 40]!r}",
            "take the tag out of the template",
            "set train.thought_open to what the template leaves to the message",
        )


def check_only_assistant(tokenizer: Any, row: Rendered, messages: list[Message], end: int, uuid: str) -> None:
    """Refuse a row whose labels hold anything but what the assistant said and the end of its turn."""
    for (start, stop), message in zip(spans(row), _said(messages), strict=False):
        trained = _bare(tokenizer.decode(row.labels[start:stop]))
        said = _bare(message["content"] + tokenizer.decode([end]))
        if trained != said:
            at = stop if trained.startswith(said) else start
            others = [_bare(other["content"]) for other in messages if other["role"] != "assistant"]
            whose = "a user's turn" if any(other and other in trained for other in others) else "text"
            raise UserError(
                f"row {uuid}: the labels hold {whose} that the assistant did not say, at: {near(tokenizer, row, at)}",
                *TEMPLATE_WAYS,
            )


def check_row(
    tokenizer: Any, row: Rendered, messages: list[Message], end: int, settings: TrainSettings, uuid: str
) -> None:
    """Run every row check, the most telling first.

    Raises:
        UserError: the first fault found.
    """
    tag = settings.thought_open.strip()
    check_marked(tokenizer, row, messages, uuid)
    check_doubled(tokenizer, row, tag, uuid)
    check_thought(tokenizer, row, messages, tag, uuid)
    check_end_of_turn(tokenizer, row, end, uuid)
    check_only_assistant(tokenizer, row, messages, end, uuid)


def _said(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["role"] == "assistant"]


def _bare(text: str) -> str:
    """Return the text without white space, in NFC: what every tokenizer gives back as it went in."""
    return "".join(unicodedata.normalize("NFC", text).split())
