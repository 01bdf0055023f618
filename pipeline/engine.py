"""The engine client: one request to an OpenAI-compatible chat endpoint, its answer or its trouble."""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from pipeline.errors import UserError
from pipeline.records import Message


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens: `url` up to and with /v1, the model name it serves, and its key."""

    url: str
    model: str
    api_key: str = ""
    key_name: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to ask for; `params` are fields of the chat-completions body."""

    id: str
    messages: list[Message]
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. `reasoning` is the engine's own field for the thought, where it has one."""

    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    endpoint: str
    attempts: int
    started: float
    seconds: float


class Retry(Exception):
    """Passing trouble: ask again, not before `after` seconds where the engine said so."""

    def __init__(self, why: str, after: float | None = None, connected: bool = True) -> None:
        super().__init__(why)
        self.after = after
        self.connected = connected


PASSING = {408, 409, 425, 429}
LONGEST_WAIT = 600.0
"""Seconds; a Retry-After beyond it is asked again sooner."""


async def complete(session: aiohttp.ClientSession, endpoint: Endpoint, request: Request, attempt: int) -> Completion:
    """Ask once.

    Raises:
        Retry: rate limits, server errors, broken connections, answers that are not whole.
        UserError: what no retry mends: a refused key, an unknown model, a context too long.
    """
    started = time.time()
    body = {"model": endpoint.model, "messages": request.messages, **request.params}
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    try:
        async with session.post(f"{endpoint.url}/chat/completions", json=body, headers=headers) as response:
            raw = await response.read()
            if response.status != 200:
                raise _refusal(endpoint, response.status, raw, response.headers.get("Retry-After"))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ConnectionRefusedError) as error:
        raise Retry(f"cannot connect ({error})", connected=False) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Retry(f"connection lost ({error or type(error).__name__})") from error
    except TimeoutError as error:
        raise Retry("no answer in time") from error
    try:
        answer = json.loads(raw)
        choice = answer["choices"][0]
        message = choice["message"]
        # vLLM has called the field `reasoning_content`, then `reasoning` (facts.md, section 6).
        reasoning = message.get("reasoning") or message.get("reasoning_content")
        usage = answer.get("usage") or {}
        return Completion(
            text=message.get("content") or "",
            reasoning=reasoning,
            finish_reason=choice.get("finish_reason") or "unknown",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            endpoint=endpoint.url,
            attempts=attempt,
            started=started,
            seconds=time.time() - started,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Retry(f"the answer is not a whole chat completion ({type(error).__name__}: {error})") from error


def _refusal(endpoint: Endpoint, status: int, raw: bytes, retry_after: str | None) -> Exception:
    said = _message(raw)
    if status in PASSING or status >= 500:
        return Retry(f"HTTP {status} {said}".strip(), _seconds(retry_after))
    if status in (401, 403):
        return UserError(
            f"the engine at {endpoint.url} refuses the key (HTTP {status}: {said})",
            f"set the environment variable {endpoint.key_name or 'named by teacher.api_key_env'} to a valid key",
            "set teacher.api_key_env to the variable that holds it",
        )
    if status == 404:
        return UserError(
            f"the engine at {endpoint.url} knows no model '{endpoint.model}' or no such path (HTTP 404: {said})",
            "set teacher.model (or teacher.served_name) to a name that it serves",
            "end teacher.endpoints in /v1",
        )
    return UserError(
        f"the engine at {endpoint.url} refuses the request (HTTP {status}: {said})",
        "lower sampling.max_tokens or raise the engine's context where it says 'too long'",
        "correct [sampling] where it names a setting",
    )


def _message(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    try:
        value = json.loads(text)
        value = value.get("error", value)
        text = str(value.get("message", value)) if isinstance(value, dict) else str(value)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:300]


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date (RFC 9110, 10.2.3)."""
    if not retry_after:
        return None
    try:
        return min(LONGEST_WAIT, max(0.0, float(retry_after)))
    except ValueError:
        pass
    try:
        seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        return min(LONGEST_WAIT, max(0.0, seconds))
    except ValueError:
        return None
