"""The stand-in engine's own ceiling: how many answers a second it gives to a client that does nothing with them.

`python benchmarks/sampling/ceiling.py URL COUNT CONCURRENCY [stream]` prints answers a second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from urllib.parse import urlsplit

import uvloop

END_OF_STREAM = b"0\r\n\r\n"


class Asker(asyncio.Protocol):
    """Asks again as soon as an answer has ended; counts bytes and looks at nothing else."""

    left = 0
    open = 0

    def __init__(self, request: bytes, stream: bool, done: asyncio.Future[None]) -> None:
        self.request, self.stream, self.done = request, stream, done
        self.length, self.had, self.tail = 0, 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        Asker.open += 1
        self._ask()

    def _ask(self) -> None:
        if Asker.left <= 0:
            self.transport.close()
            Asker.open -= 1
            if not Asker.open and not self.done.done():
                self.done.set_result(None)
            return
        Asker.left -= 1
        self.had = 0
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.stream:
            self.tail = (self.tail + data)[-len(END_OF_STREAM) :]
            if self.tail == END_OF_STREAM:
                self.tail = b""
                self._ask()
            return
        if not self.length:
            head, _, _ = data.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            self.length = len(head) + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        self.had += len(data)
        if self.had >= self.length:
            self._ask()


async def main(url: str, count: int, concurrency: int, stream: bool) -> float:
    """Return answers a second."""
    parts = urlsplit(url)
    said = '{"model":"m","messages":[{"role":"user","content":"2 plus 2?"}]' + (',"stream":true}' if stream else "}")
    request = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    Asker.left = count
    begun = time.monotonic()
    for _ in range(concurrency):
        await loop.create_connection(lambda: Asker(request, stream, done), parts.hostname, parts.port)
    await done
    return count / (time.monotonic() - begun)


if __name__ == "__main__":
    print(uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["stream"])))
