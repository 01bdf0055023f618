"""What an engine's answer says, whole or as a stream of events: text, thought, why it ended, tokens."""

from __future__ import annotations

import json
from typing import Any

import msgspec


class Retry(Exception):
    """Passing trouble: ask again, not before `after` seconds where the engine said so.

    `connected` is False where nothing was asked, `busy` True where the engine has too much to do: neither
    says anything of the request. `failing` is True where the engine itself is in trouble rather than its answer.
    """

    def __init__(
        self,
        why: str,
        after: float | None = None,
        connected: bool = True,
        busy: bool = False,
        failing: bool = False,
    ) -> None:
        super().__init__(why)
        self.failing = failing
        self.after = after
        self.connected = connected
        self.busy = busy


# What an answer holds of what is read here; all else is passed over without being built.


class _Message(msgspec.Struct):
    # Some engines send a list of parts, the thought as one of them: {"type": "thinking", "thinking": [...]}.
    content: str | list[Any] | None = None
    # vLLM has called the field `reasoning_content`, then `reasoning` (facts.md, section 6).
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None  # of a plain completion
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0


class _Reply(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    object: str = ""
    message: Any = None


class _Read(msgspec.Struct):
    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


_REPLY = msgspec.json.Decoder(_Reply, strict=False)
_REPLIES = msgspec.json.Decoder(list[_Reply], strict=False)


def read_whole(raw: bytes) -> _Read:
    """Read a completion.

    Raises:
        ValueError, IndexError, TypeError: it is none, or not whole.
    """
    reply = _decoded(_REPLY, raw)
    choice = reply.choices[0]
    if choice.message is None and choice.text is None:
        raise ValueError("a choice without a message")
    usage = reply.usage or _Usage()
    text, thought = _said(choice)
    return _Read(
        text,
        thought or None,
        choice.finish_reason or "unknown",
        usage.prompt_tokens or 0,
        usage.completion_tokens or 0,
    )


def read_stream(raw: bytes) -> _Read:
    """Read the events of a stream, joined; all of them are decoded in one go, which costs a tenth of one by one.

    Raises:
        Retry: the engine sent an error instead of the rest.
        ValueError: an event is no JSON.
    """
    events = [line[5:] for line in raw.split(b"\n") if line.startswith(b"data:")]
    while events and events[-1].strip() in (b"[DONE]", b""):
        events.pop()
    replies = _decoded(_REPLIES, b"[" + b",".join(events) + b"]")
    texts: list[str] = []
    thoughts: list[str] = []
    finish, usage = "", _Usage()
    for reply in replies:
        if reply.error is not None or reply.object == "error":
            said = reply.error if reply.error is not None else reply.message
            raise Retry(f"the engine broke the stream off ({worded(said)})")
        usage = reply.usage or usage
        for choice in reply.choices[:1]:
            text, aside = _said(choice)
            texts.append(text)
            thoughts.append(aside)
            finish = choice.finish_reason or finish
    return _Read(
        "".join(texts), "".join(thoughts) or None, finish, usage.prompt_tokens or 0, usage.completion_tokens or 0
    )


def _said(choice: _Choice) -> tuple[str, str]:
    """The text of a choice, and the thought where the engine put it apart."""
    message = choice.message or choice.delta
    if message is None:
        return choice.text or "", ""
    thought = message.reasoning or message.reasoning_content or ""
    content = message.content
    if isinstance(content, list):
        thought += "".join(_part(part.get("thinking")) for part in content if isinstance(part, dict))
        content = "".join(_part(part) for part in content if isinstance(part, dict) and "thinking" not in part)
    return content or "", thought


def _part(part: Any) -> str:
    if isinstance(part, list):
        return "".join(map(_part, part))
    return str(part.get("text") or "") if isinstance(part, dict) else part if isinstance(part, str) else ""


def _decoded(decoder: Any, raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Half a surrogate pair, escaped, is no Unicode, yet Python's own reader takes it.
        try:
            return msgspec.convert(json.loads(raw), decoder.type, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error


def worded(value: Any) -> str:
    """Return what an engine's error says."""
    return str(value.get("message", value)) if isinstance(value, dict) else str(value)
