"""Rows of a dataset on the Hugging Face Hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from pipeline.errors import UserError


def hub_rows(repository: str, config: str, split: str, *ways: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for each row, streamed; `where` names dataset, split and row, for messages.

    Args:
        repository: the dataset's id.
        config: its configuration; empty where it has one alone.
        split: the split.
        ways: what the user may do where it cannot be read, beside checking the connection.

    Raises:
        UserError: no network, no such dataset, configuration or split.
    """
    from datasets import load_dataset

    # Its client tells of every retry, for 25 s, before it gives up; our one line says the same.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    number = 0
    try:
        for number, row in enumerate(load_dataset(repository, config or None, split=split, streaming=True), start=1):
            yield f"{repository}[{split}]:{number}", dict(row)
    except Exception as error:  # the Hub client raises a dozen unrelated kinds
        first = str(error).strip().split("\n")[0][:200]
        raise UserError(
            f"cannot read the Hub dataset {repository}, config '{config}', split '{split}'"
            f"{f' beyond row {number:,}' if number else ''} ({type(error).__name__}: {first})",
            "check the connection and run the same command again" if number else "check the names and the connection",
            *ways,
        ) from error
