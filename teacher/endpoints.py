"""Where the teacher listens: the recipe's endpoints, and a file of them that may change during a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.engine import Endpoint, url_trouble
from pipeline.errors import UserError
from teacher.settings import ServedModel


def remote_endpoints(teacher: ServedModel) -> list[Endpoint]:
    """Return the recipe's endpoints with the key from the environment; [] where Retort serves itself.

    Raises:
        UserError: the environment variable for the key is named but not set, or the file of endpoints cannot be read.
    """
    key = ""
    if teacher.api_key_env:
        key = os.environ.get(teacher.api_key_env, "")
        if not key:
            raise UserError(
                f"teacher.api_key_env names the environment variable {teacher.api_key_env}, which is not set",
                f"export {teacher.api_key_env}=...",
                "remove teacher.api_key_env where the engine asks for no key",
            )
    name = teacher.served_name or teacher.model
    urls = [*teacher.endpoints, *(_lines(Path(teacher.endpoints_file)) if teacher.endpoints_file else [])]
    found = [Endpoint(url.rstrip("/"), name, key, teacher.api_key_env) for url in dict.fromkeys(urls)]
    if teacher.endpoints_file and not found:
        raise UserError(
            f"teacher.endpoints_file = {teacher.endpoints_file} names no endpoint",
            "write a URL up to and with /v1 into it, one a line",
        )
    return found


def listing(teacher: ServedModel) -> Callable[[], list[Endpoint]] | None:
    """Return what the driver asks for the endpoints of now, or None where they do not change.

    A file that cannot be read for a moment, or holds nothing, changes nothing.
    """
    if not teacher.endpoints_file:
        return None
    last = remote_endpoints(teacher)

    def now() -> list[Endpoint]:
        nonlocal last
        with contextlib.suppress(UserError):
            last = remote_endpoints(teacher)
        return last

    return now


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read teacher.endpoints_file = {path} ({error})", "give a file with a URL a line"
        ) from error
    urls = [line for line in lines if line]
    for url in urls:
        if trouble := url_trouble(url):
            raise UserError(f"{path}: {trouble}", "write URLs up to and with /v1, one a line")
    return urls
