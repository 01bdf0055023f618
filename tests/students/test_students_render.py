"""Rendering: the mask covers what the assistant said and the end of its turn, and no row is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.records import Message
from pipeline.stages import Job
from students.render import (
    IGNORED,
    Tally,
    end_of_turn,
    read_examples,
    render,
    render_all,
    set_template,
    train_files,
    with_tags,
)
from students.settings import TrainSettings


def trained(tokenizer: Any, messages: list[Message]) -> str:
    row = render(tokenizer, messages)
    return "".join(tokenizer.decode([label]) if label != IGNORED else "\0" for label in row.labels).replace(
        "\0\0", "\0"
    )


def turns(*contents: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def test_mask_of_a_single_turn(tokenizer: Any) -> None:
    text = trained(tokenizer, turns("1+1?", "<think>\none\n</think>\n\n2"))
    assert [part for part in text.split("\0") if part] == ["<think>\none\n</think>\n\n2<|im_end|>"]


def test_mask_of_two_turns_keeps_both_thoughts(tokenizer: Any) -> None:
    messages = turns("a", "<think>\nx\n</think>\n\nb", "c", "<think>\ny\n</think>\n\nd")
    text = trained(tokenizer, messages)
    assert [part for part in text.split("\0") if part] == [
        "<think>\nx\n</think>\n\nb<|im_end|>",
        "<think>\ny\n</think>\n\nd<|im_end|>",
    ]


def test_the_rendered_text_has_no_system_prompt(tokenizer: Any) -> None:
    text = tokenizer.decode(render(tokenizer, turns("a", "b")).input_ids)
    assert text == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    prompt = tokenizer.apply_chat_template(turns("a"), tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


def test_tags_of_the_dataset_become_those_of_the_student() -> None:
    rows = turns("<think>\nmine\n</think>", "<think>\nwhy\n</think>\n\n4")
    assert with_tags(rows, TrainSettings()) == rows
    settings = TrainSettings(thought_open="[T]", thought_close="[/T]\n")
    assert with_tags(rows, settings)[1]["content"] == "[T]why[/T]\n4"
    assert with_tags(rows, settings)[0] == rows[0]


def test_over_length_rows_are_dropped_and_counted(tokenizer: Any, make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job([turns("a", "b"), turns("a", "b" * 300), turns("a", "c")])
    settings = TrainSettings(max_length=64)
    path = tmp_path / "rows.arrow"
    examples = read_examples(train_files(job.folder("dataset")))
    tally = render_all(tokenizer, examples, settings, lambda *row: None, path)
    short, long = (len(render(tokenizer, turns("a", text)).input_ids) for text in ("b", "b" * 300))
    assert tally == Tally(
        rows=3,
        kept=2,
        over_length=1,
        tokens=2 * short,
        label_tokens=4,
        over_length_tokens=long,
        longest_seen=long,
        licenses={"cc-by-4.0": 2},
        sources={"made": 2},
    )
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as rows:
        assert [len(row["input_ids"]) for row in rows.read_all().to_pylist()] == [short, short]


def test_end_of_turn_is_read_from_the_template(tokenizer: Any) -> None:
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer, TrainSettings())) == "<|im_end|>"


def test_a_template_for_another_base_is_refused(tokenizer: Any) -> None:
    settings = TrainSettings(base="some/base", chat_template="llama3")
    set_template(tokenizer, settings)
    with pytest.raises(UserError, match=r"turn with '<\|eot_id\|>', which is no special token of some/base"):
        end_of_turn(tokenizer, settings)


def test_the_bases_own_template_must_mark_what_is_trained(tokenizer: Any) -> None:
    settings = TrainSettings(base="some/base", chat_template="model")
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="some/base has no chat template of its own: set train.chat_template"):
        set_template(tokenizer, settings)
    tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(UserError, match="does not mark what the assistant says"):
        set_template(tokenizer, settings)


def test_a_broken_dataset_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train-0.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="train-0.parquet .*run 'retort dataset' again"):
        list(read_examples([path]))
