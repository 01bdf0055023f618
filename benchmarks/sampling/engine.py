"""A stand-in for an engine whose answers cost next to nothing, so that what is measured is the client.

`python benchmarks/sampling/engine.py [--bytes N] [--median S] [--sigma X]` prints its port and serves until killed:
chat completions, whole or in chunks of 16 tokens, of a text of N bytes. With a median latency, answers come late by a
log-normal draw that hangs on the question's number alone ("Question 17: ..."), so that two clients wait for the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re

import uvloop

CHUNK_CHARACTERS = 64
"""Of 16 tokens."""
NUMBER = re.compile(rb"Question (\d+)")


def text_of(size: int) -> str:
    """Return a thought and an answer of so many characters, of words that do not repeat much."""
    draw = random.Random(5)
    words = [
        f"{draw.choice('bcdfghklmnprstvw')}{draw.choice('aeiou')}{draw.choice('nrstlm')}" for _ in range(size // 4)
    ]
    thought = " ".join(words)[: size - 60]
    return f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{4}}."


def latency_of(number: int, median: float, sigma: float) -> float:
    """Return how long the answer to a question takes, in seconds."""
    return median * math.exp(sigma * random.Random(number).gauss(0, 1)) if median else 0.0


def whole(text: str, tokens: int) -> bytes:
    """Return an HTTP answer with a chat completion."""
    body = json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(text: str, tokens: int) -> bytes:
    """Return an HTTP answer with a stream of chunks, as vLLM sends it."""
    common = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    pieces = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]
    rows: list[dict[str, object]] = []
    for number, piece in enumerate(pieces):
        last = "stop" if number == len(pieces) - 1 else None
        rows.append({**common, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": last}]})
    rows.append({**common, "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": tokens}})
    events = [f"data: {json.dumps(row)}\n\n" for row in rows] + ["data: [DONE]\n\n"]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(event.encode()), event.encode()) for event in events)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + framed + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client's connection: requests one after another."""

    def __init__(self, answers: tuple[bytes, bytes], options: argparse.Namespace) -> None:
        self.answers, self.options = answers, options
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head = self.held[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.held) < end + 4 + length:
                return
            body, self.held = self.held[end + 4 : end + 4 + length], self.held[end + 4 + length :]
            last = b"connection: close" in head
            if head.startswith(b"post"):
                self._answer(body, last)
            else:
                self._write(self._other(head), last)

    def _answer(self, body: bytes, last: bool) -> None:
        answer = self.answers[b'"stream":true' in body or b'"stream": true' in body]
        number = NUMBER.search(body)
        late = latency_of(int(number[1]), self.options.median, self.options.sigma) if number else 0.0
        if late:
            asyncio.get_running_loop().call_later(late, self._write, answer, last)
        else:
            self._write(answer, last)

    @staticmethod
    def _other(head: bytes) -> bytes:
        if b"/models" in head.split(b"\r\n", 1)[0]:
            body = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
            return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if b"/health" in head.split(b"\r\n", 1)[0]:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    def _write(self, answer: bytes, last: bool) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)  # type: ignore[attr-defined]
            if last:
                self.transport.close()


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed; print the port first."""
    text = text_of(options.bytes)
    answers = whole(text, len(text) // 4), chunked(text, len(text) // 4)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answers, options), "127.0.0.1", options.port, backlog=16384)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--median", type=float, default=0.0)
    parser.add_argument("--sigma", type=float, default=1.0)
    uvloop.run(serve(parser.parse_args()))
