"""The engine client: one request to an OpenAI-compatible chat endpoint, its answer or its trouble."""

from __future__ import annotations

import email.utils
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from pipeline.errors import UserError
from pipeline.http import Answer, Broken, Connections, Unreachable
from pipeline.records import Message
from pipeline.rendered import Rest, plain_body
from pipeline.replies import Retry, read_stream, read_whole, worded


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
    rest: Rest | None = None
    """The same as the rest of an answer, for an engine that goes on word for word."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. `reasoning` is the engine's own field for the thought, where it has one.

    `finish_reason` is the engine's, or what the driver cut the stream for. `tokens_counted` is False where
    the engine gave no count and `completion_tokens` is an estimate from the text's length.
    """

    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    endpoint: str
    attempts: int
    started: float
    seconds: float
    tokens_counted: bool = True
    engine: str = ""
    max_tokens: int = 0
    """What it was allowed in all, where that is more than its request says."""
    read_again: int = 0
    """Prompt tokens beyond `prompt_tokens` that were paid for: what a continuation began with."""
    plain: bool = False
    """Whether the text is as the model wrote it, tags and all, whatever the engine usually does with a thought."""


class Refusal(UserError):
    """The engine will not answer this request, however often it is asked; other requests it may."""


class TooLong(Refusal):
    """The request does not fit the engine's context."""


LENGTH = re.compile(r"context|too long|max_tokens|maximum.{0,20}(?:length|tokens)|length", re.IGNORECASE)
"""What engines say of a request that does not fit (vLLM, SGLang, OpenAI, llama.cpp)."""


PASSING = {408, 409, 425, 429}
BUSY = {429, 503, 529}
LONGEST_WAIT = 600.0
"""Seconds; a Retry-After beyond it is asked again sooner."""
UNFINISHED = {"abort", "error"}
"""Finish reasons of an answer that is not whole though it came to an end: vLLM's and SGLang's."""
CHARACTERS_A_TOKEN = 4
"""About, in English: where the engine counts no tokens (a stream that was cut)."""


@dataclass(eq=False)
class Call:
    """A request on its way; whoever watches may look at `answer` and cut it."""

    endpoint: Endpoint
    request: Request
    streamed: bool
    engine: str = ""
    """Which engine it is, where that is known."""
    answer: Answer = field(default_factory=Answer)
    looked: int = 0
    """Bytes of the body at the last look for a loop."""
    cut_for: str = ""
    """What it was cut for, if what came is to be kept: its finish reason."""

    def text(self, last: int | None = None) -> str:
        """Return the text and thought so far; of the body's last bytes only, where `last` says how many."""
        body = bytes(self.answer.body if last is None else self.answer.body[-last:])
        try:
            found = read_stream(body[: body.rfind(b"\n") + 1])
        except (ValueError, Retry):
            return ""
        return (found.reasoning or "") + found.text


async def complete(connections: Connections, call: Call, attempt: int) -> Completion:
    """Ask once.

    Raises:
        Retry: rate limits, server errors, broken connections, answers that are not whole.
        UserError: what no retry mends: a refused key, an unknown model, a context too long.
    """
    endpoint, answer = call.endpoint, call.answer
    started, begun = time.time(), time.monotonic()
    answer.streamed = call.streamed
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    try:
        rest = call.request.rest
        plain = rest and await plain_body(connections, endpoint.url, headers, endpoint.model, rest)
        body = plain or {"model": endpoint.model, "messages": call.request.messages, **call.request.params}
        if call.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        url = _url(endpoint.url, "completions" if plain else "chat/completions")
        await connections.post(url, headers, _encoded(body), answer)
    except Unreachable as error:
        raise Retry(str(error), connected=False) from error
    except Broken as error:
        raise Retry(str(error), failing=not answer.body) from error
    raw = bytes(answer.body)
    if answer.status != 200:
        raise _refusal(endpoint, answer.status, raw, answer.headers.get("retry-after"))
    try:
        streamed = call.streamed and "json" not in answer.headers.get("content-type", "")
        found = read_stream(raw[: raw.rfind(b"\n") + 1] if call.cut_for else raw) if streamed else read_whole(raw)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Retry(f"the answer is not a whole chat completion ({type(error).__name__}: {error})") from error
    if not (found.finish_reason or call.cut_for):
        raise Retry("the stream ended before the completion did")
    if found.finish_reason in UNFINISHED and not call.cut_for:
        raise Retry(f"the engine broke the answer off (finish reason '{found.finish_reason}')")
    said = len(found.text) + len(found.reasoning or "")
    return Completion(
        text=found.text,
        reasoning=found.reasoning,
        finish_reason=call.cut_for or found.finish_reason,
        prompt_tokens=found.prompt_tokens or (_asked_tokens(call.request) if call.cut_for else 0),
        completion_tokens=found.completion_tokens or -(-said // CHARACTERS_A_TOKEN),
        endpoint=endpoint.url,
        attempts=attempt,
        started=started,
        seconds=time.monotonic() - begun,
        tokens_counted=found.completion_tokens > 0,
        engine=call.engine,
        plain=plain is not None,
    )


def _asked_tokens(request: Request) -> int:
    """About how many tokens a request is long."""
    return sum(len(message["content"]) for message in request.messages) // CHARACTERS_A_TOKEN


def _encoded(body: dict[str, Any]) -> bytes:
    """A body as JSON. A lone surrogate (half of a character, at the end of a text that was cut) becomes a mark."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


_urls: dict[tuple[str, str], SplitResult] = {}


def url_trouble(url: str) -> str | None:
    """Return what is wrong with an endpoint's URL, None where nothing is."""
    if not url.startswith(("http://", "https://")):
        return f"'{url}' must begin with http:// or https://"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"'{url}' is no URL ({error})"
    return None if parts.hostname else f"'{url}' names no host"


def _url(base: str, path: str) -> SplitResult:
    if (base, path) not in _urls:
        _urls[base, path] = urlsplit(f"{base}/{path}")
    return _urls[base, path]


def _refusal(endpoint: Endpoint, status: int, raw: bytes, retry_after: str | None) -> Exception:
    said = _message(raw)
    if status in PASSING or status >= 500:
        return Retry(f"HTTP {status} {said}".strip(), _seconds(retry_after), busy=status in BUSY, failing=status >= 500)
    if status in (401, 403):
        return UserError(
            f"the engine at {endpoint.url} refuses the key (HTTP {status}: {said})",
            f"set the environment variable {endpoint.key_name or 'named by teacher.api_key_env'} to a valid key",
            "set teacher.api_key_env to the variable that holds it",
        )
    if status == 402:
        return UserError(
            f"the engine at {endpoint.url} wants to be paid first (HTTP 402: {said})",
            "top up the account and run the same command again: what finished is kept",
        )
    if status == 404:
        return UserError(
            f"the engine at {endpoint.url} knows no model '{endpoint.model}' or no such path (HTTP 404: {said})",
            "set teacher.model (or teacher.served_name) to a name that it serves",
            "end teacher.endpoints in /v1",
        )
    kind = TooLong if LENGTH.search(said) else Refusal
    return kind(
        f"the engine at {endpoint.url} refuses the request (HTTP {status}: {said})",
        "lower sampling.max_tokens or raise the engine's context where it says 'too long'",
        "correct [sampling] where it names a setting",
    )


def _message(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    try:
        value = json.loads(text)
        text = worded(value.get("error", value))
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
