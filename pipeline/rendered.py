"""Going on with an answer word for word: the engine renders the conversation, a plain completion goes on from there.

A chat template may change an assistant's message that is to be continued: Qwen3's puts an empty thought before it. vLLM
tells the tokens of a conversation (`/tokenize`, vllm/entrypoints/serve/tokenize) and takes tokens for a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pipeline.http import Answer, Connections
from pipeline.records import Message
from pipeline.replies import Retry

RENDERING = ("add_generation_prompt", "continue_final_message", "chat_template_kwargs")
"""Fields of a chat request that say how a conversation is rendered; a plain completion knows none of them."""
LAST = 8
"""Tokens at the end of a rendered conversation among which a tag is looked for that opens the thought."""
NOT_IMPLEMENTED = 501
SPACES = " \n\u010a\u0120\u2581"
"""White space, also as vocabularies write it."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is continued: the conversation as it was asked, and what was said since."""

    messages: list[Message]
    params: dict[str, Any]
    """Fields of the chat request, with the tokens that are still allowed."""
    opening: str
    """What opened the thought: put back where the rendered conversation does not end in it."""
    said: str


class _Tokens(msgspec.Struct):
    tokens: list[int]
    token_strs: list[str] | None = None


_DECODER = msgspec.json.Decoder(_Tokens)
_without: set[str] = set()
"""Endpoints that render no conversation."""


async def plain_body(
    connections: Connections, url: str, headers: dict[str, str], model: str, rest: Rest
) -> dict[str, Any] | None:
    """Return the body of the plain completion that goes on, None where the engine renders no conversation.

    Args:
        url: of the endpoint, up to and with /v1.

    Raises:
        Unreachable, Broken: as `Connections.post`.
        Retry: the engine has trouble.
    """
    if url in _without:
        return None
    rendering = {name: rest.params[name] for name in RENDERING if name in rest.params}
    asked = {"model": model, "messages": rest.messages, "return_token_strs": True, **rendering}
    before = await _tokens(connections, url, headers, asked)
    if before is None:
        return None
    ends = "".join((before.token_strs or [])[-LAST:]).rstrip(SPACES).endswith(rest.opening.strip())
    said = rest.said if ends else rest.opening + rest.said
    # Half of a character, at the end of a text that was cut, is no Unicode: it becomes a mark.
    said = said.encode("utf-8", "replace").decode()
    after = await _tokens(connections, url, headers, {"model": model, "prompt": said, "add_special_tokens": False})
    if after is None:
        return None
    params = {name: value for name, value in rest.params.items() if name not in RENDERING}
    return {"model": model, "prompt": before.tokens + after.tokens, **params}


async def _tokens(connections: Connections, url: str, headers: dict[str, str], body: dict[str, Any]) -> _Tokens | None:
    answer = Answer()
    base = url.rstrip("/").removesuffix("/v1")
    await connections.post(urlsplit(f"{base}/tokenize"), headers, msgspec.json.encode(body), answer)
    if answer.status == 429 or (answer.status >= 500 and answer.status != NOT_IMPLEMENTED):
        raise Retry(f"HTTP {answer.status} from /tokenize", busy=answer.status in (429, 503), failing=True)
    try:
        if answer.status == 200:
            return _DECODER.decode(bytes(answer.body))
    except msgspec.MsgspecError:
        pass
    if answer.status in (200, 404, 405, NOT_IMPLEMENTED):
        _without.add(url)
    return None
