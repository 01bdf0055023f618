"""Rendering: each conversation of the dataset becomes, once, the tokens and labels that are trained."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.records import Message
from students.settings import TEMPLATES, TrainSettings

IGNORED = -100
ROWS_A_BATCH = 200
SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
UNCLOSED = re.compile(r"\A\s*<think>(?!.*</think>)(.*)\Z", re.DOTALL)
COLUMNS = ["uuid", "messages", "license", "source"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as trained: labels are the tokens where the assistant speaks, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]


@dataclass
class Tally:
    """What rendering counted. Tokens are of the rows kept, unless the name says otherwise."""

    rows: int = 0
    kept: int = 0
    over_length: int = 0
    tokens: int = 0
    label_tokens: int = 0
    over_length_tokens: int = 0
    longest_seen: int = 0
    licenses: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)

    def keep(self, row: Rendered, example: dict[str, Any]) -> None:
        """Count a row that will be trained."""
        self.kept += 1
        self.tokens += len(row.input_ids)
        self.label_tokens += sum(label != IGNORED for label in row.labels)
        for counts, value in ((self.licenses, example["license"]), (self.sources, example["source"])):
            counts[value] = counts.get(value, 0) + 1


def train_files(dataset: Path) -> list[Path]:
    """Return the parquet files of the dataset folder's accepted rows, in name order."""
    return sorted(dataset.glob("data/train-*.parquet"))


def read_examples(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows (`COLUMNS` of the schema `Example`) of parquet files, in order, a batch in memory at a time.

    Raises:
        UserError: a file cannot be read.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=ROWS_A_BATCH, columns=COLUMNS):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {path} ({error})", "run 'retort dataset' again with --rebuild") from error


def with_tags(messages: Iterable[Message], settings: TrainSettings) -> list[Message]:
    """Return the messages with the assistant's <think> tags written as the settings want them."""
    found: list[Message] = []
    for message in messages:
        content = message["content"]
        thought = THOUGHT.match(content) if message["role"] == "assistant" else None
        if thought:
            answer = content[thought.end() :]
            content = settings.thought_open + thought[1].strip() + settings.thought_close + answer
        elif message["role"] == "assistant" and (unclosed := UNCLOSED.match(content)):
            content = settings.thought_open + unclosed[1].strip()
        found.append({"role": message["role"], "content": content})
    return found


def set_template(tokenizer: Any, settings: TrainSettings) -> None:
    """Give the tokenizer the chat template to train with, and to be saved with the student.

    Raises:
        UserError: the base has no template of its own, or it does not mark what the assistant says.
    """
    if settings.chat_template != "model":
        tokenizer.chat_template = (TEMPLATES / f"{settings.chat_template}.jinja").read_text()
        return
    ways = (
        "set train.chat_template = 'chatml'",
        "put a copy of the model's template with {% generation %} markers into students/templates/",
    )
    if not isinstance(tokenizer.chat_template, str):
        raise UserError(f"the base {settings.base} has no chat template of its own", *ways)
    if "generation %}" not in tokenizer.chat_template and "generation -%}" not in tokenizer.chat_template:
        raise UserError(
            f"the chat template of {settings.base} does not mark what the assistant says (no generation markers)", *ways
        )


def end_of_turn(tokenizer: Any, settings: TrainSettings) -> int:
    """Return the id of the token with which the template ends the assistant's turn.

    Raises:
        UserError: the template ends it with nothing that is one special token of this base.
    """
    sentinel = "retort"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": sentinel}], tokenize=False
    )
    after = text.rpartition(sentinel)[2].strip()
    ids = tokenizer.encode(after, add_special_tokens=False) if after else []
    if not ids or (ids[0] not in tokenizer.all_special_ids and ids[0] not in tokenizer.added_tokens_decoder):
        raise UserError(
            f"the chat template ends the assistant's turn with {after[:40]!r}, "
            f"which is no special token of {settings.base}",
            "choose a train.chat_template made for this base ('model' is its own)",
            "choose a base that has the token",
        )
    return int(ids[0])


def render(tokenizer: Any, messages: list[Message]) -> Rendered:
    """Return a conversation's tokens and labels, whole: nothing is cut."""
    found = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    ids = list(found["input_ids"])
    labels = [token if kept else IGNORED for token, kept in zip(ids, found["assistant_masks"], strict=True)]
    return Rendered(ids, labels)


@contextmanager
def row_file(path: Path) -> Iterator[Callable[[Rendered], None]]:
    """Open an Arrow file of `SCHEMA`; yields the function that adds a row to it."""
    batch: list[Rendered] = []

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:

        def flush() -> None:
            columns = [
                pa.array([getattr(row, name) for row in batch], SCHEMA.field(name).type) for name in SCHEMA.names
            ]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
            batch.clear()

        def add(row: Rendered) -> None:
            batch.append(row)
            if len(batch) == ROWS_A_BATCH:
                flush()

        yield add
        if batch:
            flush()


def lengths_of(path: Path) -> list[int]:
    """Return the tokens of each row of such a file, in order."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return [length for batch in reader for length in pc.list_value_length(batch.column("input_ids")).to_pylist()]


def render_all(
    tokenizer: Any,
    examples: Iterable[dict[str, Any]],
    settings: TrainSettings,
    check: Callable[[Rendered, list[Message], str], None],
    path: Path,
) -> Tally:
    """Render every row into an Arrow file of `SCHEMA` and return the counts.

    Rows over `max_length` are left out and counted. `check` sees each row kept, its messages and its
    uuid, and raises UserError to refuse.
    """
    tally = Tally()
    with row_file(path) as add:
        for example in examples:
            tally.rows += 1
            messages = with_tags(example["messages"], settings)
            row = render(tokenizer, messages)
            tally.longest_seen = max(tally.longest_seen, len(row.input_ids))
            if len(row.input_ids) > settings.max_length:
                tally.over_length += 1
                tally.over_length_tokens += len(row.input_ids)
                continue
            check(row, messages, example["uuid"])
            tally.keep(row, example)
            add(row)
    return tally
