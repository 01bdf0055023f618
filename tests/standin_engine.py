"""A stand-in for an inference engine, for tests of faults only: it speaks the real protocol (OpenAI chat
completions) and adds small numbers, rightly or wrongly as its seed has it. No model is behind it.

`python tests/standin_engine.py [--port N] [--latency S] [--wrong SHARE] [--faults 500=0.1,429=0.1,...]`
prints its port and serves until killed. Faults: 500, 429, 429-after, cut (half the JSON), close (socket
closed), empty (no choices), abort (broken off by the engine), hang; in streams also stall (nothing more comes),
comments (nothing more but ": keep-alive"), broken (closed in the middle), error (an error event); by share of
requests. `--status N` answers every request with N, and `--says` what.

`--limit N` refuses with 429 what goes beyond N at once; `--slots N` runs N and lets others wait, as /metrics then
says in vLLM's words; `--slow-start S` refuses connections' requests with 503 at first; `--die-after N` ends the
process; `--renders` tells tokens at /tokenize and takes them at /v1/completions, while its chat template spoils what
is continued, as Qwen3's does; `--opens` has the template open the thought; `--loop` goes round in a loop up to
max_tokens; `--chunk-latency S` is for each 16 tokens of a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import sys
import time
from typing import Any

from aiohttp import web


def answer_for(messages: list[dict[str, str]], salt: str, wrong: float) -> str:
    """Return '<think>...' and an answer to 'What is A plus B?', wrong for a share of (question, salt)."""
    question = messages[-1]["content"].partition("\nDraft:")[0]
    numbers = [int(found) for found in re.findall(r"\d+", question)]
    total = sum(numbers)
    draw = int(hashlib.sha256(f"{question}/{salt}".encode()).hexdigest()[:8], 16) / 16**8
    if draw < wrong:
        total += 1
    steps = " + ".join(map(str, numbers))
    return f"<think>\nI add the numbers: {steps} = {total}.\n</think>\n\nThe answer is \\boxed{{{total}}}."


SPOKEN = "\0"
"""Where, in a rendered conversation, the assistant speaks."""


class StandIn:
    """The server's state: options, and counts that tests read at /counts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.faults = [
            (name, float(share)) for name, _, share in (f.partition("=") for f in options.faults.split(",") if f)
        ]
        self.counts = {"requests": 0, "answered": 0, "faults": 0, "most_at_once": 0, "refused": 0}
        self.counts |= {"continued": 0, "plain": 0}
        self.at_once = 0
        self.begun = time.monotonic()
        self.slots = asyncio.Semaphore(options.slots) if options.slots else None
        self.running = 0

    def fault(self) -> str | None:
        draw = self.random.random()
        for name, share in self.faults:
            if draw < share:
                return name
            draw -= share
        return None

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.counts["requests"] += 1
        self.counts["most_at_once"] = max(self.counts["most_at_once"], self.at_once)
        try:
            if self.options.die_after and self.counts["requests"] > self.options.die_after:
                os._exit(1)
            if self.options.limit and self.at_once > self.options.limit:
                self.counts["refused"] += 1
                return web.json_response({"error": {"message": "too many at once"}}, status=429)
            if time.monotonic() - self.begun < self.options.slow_start:
                return web.json_response({"error": {"message": "loading"}}, status=503)
            async with self.slots or contextlib.nullcontext():
                self.running += 1
                try:
                    return await self._chat(request)
                finally:
                    self.running -= 1
        finally:
            self.at_once -= 1

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if "prompt" in body:
            asked, _, plain = "".join(map(chr, body["prompt"])).partition(SPOKEN)
            body |= {"messages": json.loads(asked), "plain": plain}
        if self.options.key and request.headers.get("Authorization") != f"Bearer {self.options.key}":
            return web.json_response({"error": {"message": "invalid api key"}}, status=401)
        if self.options.status != 200:
            return web.json_response({"error": {"message": self.options.says}}, status=self.options.status)
        if body["model"] != self.options.model:
            return web.json_response({"error": {"message": f"The model `{body['model']}` does not exist."}}, status=404)
        await asyncio.sleep(self.options.latency * self.random.uniform(0.5, 1.5))
        kind = self.fault()
        if kind:
            self.counts["faults"] += 1
        if kind == "500":
            return web.json_response({"error": {"message": "engine fell over"}}, status=500)
        if kind == "429":
            return web.json_response({"error": {"message": "slow down"}}, status=429)
        if kind == "429-after":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0.2"})
        if kind == "close":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if kind == "hang":
            await asyncio.sleep(3600)
        asked = [message for message in body["messages"] if message["role"] != "assistant"]
        text = answer_for(asked, str(body.get("seed")), self.options.wrong)
        if self.options.no_thought:
            text = text.partition("</think>")[2].strip()
        if self.options.loop:
            text = "<think>\nFirst I look at it. " + "and round and round it goes once more " * 10**4
        if self.options.opens:
            text = text.removeprefix("<think>\n")
        if body.get("plain"):
            before = body["plain"].removeprefix("<think>\n") if self.options.opens else body["plain"]
            if not text.startswith(before):
                return web.json_response({"error": {"message": f"cannot go on from {before!r}"}}, status=400)
            text = text[len(before) :]
            self.counts["plain"] += 1
        elif body.get("continue_final_message"):
            before = body["messages"][-1]["content"]
            before = f"<think>\n\n</think>\n\n{before}" if self.options.renders else before
            if not text.startswith(before):
                return web.json_response({"error": {"message": f"cannot go on from {before!r}"}}, status=400)
            text = text[len(before) :]
            self.counts["continued"] += 1
        if len(text) // 4 > body.get("max_tokens", 10**9):
            text, finish = text[: body["max_tokens"] * 4], "length"
        else:
            finish = "stop"
        if body.get("stream"):
            return await self._stream(request, body, text, finish, kind)
        said = {"text": text} if body.get("plain") else {"message": {"role": "assistant", "content": text}}
        row = {
            "id": "standin",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, **said, "finish_reason": finish}],
            "usage": {"prompt_tokens": 10, "completion_tokens": len(text) // 4, "total_tokens": 10 + len(text) // 4},
        }
        if kind == "empty":
            row["choices"] = []
        if kind == "abort":
            row["choices"][0] |= {"message": {"role": "assistant", "content": text[:9]}, "finish_reason": "abort"}
        data = json.dumps(row)
        self.counts["answered"] += kind is None
        return web.Response(text=data[: len(data) // 2] if kind == "cut" else data, content_type="application/json")

    async def _stream(
        self, request: web.Request, body: dict[str, Any], text: str, finish: str, kind: str | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pieces = [text[start : start + 64] for start in range(0, len(text), 64)]
        common = {
            "id": "standin",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body["model"],
        }

        async def send(row: dict[str, Any] | str) -> None:
            data = row if isinstance(row, str) else json.dumps({**common, **row})
            await response.write(f"data: {data}\n\n".encode())

        for number, piece in enumerate(pieces):
            await asyncio.sleep(self.options.chunk_latency)
            if number == len(pieces) // 2:
                if kind == "stall":
                    await asyncio.sleep(3600)
                while kind == "comments":
                    await response.write(b": keep-alive\n\n")
                    await asyncio.sleep(0.1)
                if kind == "broken":
                    assert request.transport is not None
                    request.transport.close()
                    return response
                if kind == "error":
                    await send({"error": {"message": "the engine lost its cache", "code": 500}})
                    return response
            last = finish if number == len(pieces) - 1 else None
            said = {"text": piece} if body.get("plain") else {"delta": {"content": piece}}
            await send({"choices": [{"index": 0, **said, "finish_reason": last}]})
        if body.get("stream_options", {}).get("include_usage"):
            await send({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": len(text) // 4}})
        await send("[DONE]")
        self.counts["answered"] += kind is None
        return response

    async def tokenize(self, request: web.Request) -> web.Response:
        if not self.options.renders:
            return web.Response(status=404)
        body = await request.json()
        text = body.get("prompt")
        if text is None:
            text = json.dumps(body["messages"]) + SPOKEN + ("<think>\n" if self.options.opens else "")
        return web.json_response({"tokens": list(map(ord, text)), "token_strs": list(text)})

    async def metrics(self, request: web.Request) -> web.Response:
        if self.slots is None:
            return web.Response(status=404)
        waiting = self.at_once - self.running
        return web.Response(
            text=f'# TYPE x gauge\nvllm:num_requests_running{{engine="0"}} {self.running}.0\n'
            f'vllm:num_requests_waiting{{engine="0"}} {waiting}.0\n'
        )

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.options.model, "object": "model"}]})

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.0-standin"})

    async def told(self, request: web.Request) -> web.Response:
        return web.json_response(self.counts)


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed; print the port first."""
    stand_in = StandIn(options)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", stand_in.chat)
    app.router.add_post("/v1/completions", stand_in.chat)
    app.router.add_post("/tokenize", stand_in.tokenize)
    app.router.add_get("/v1/models", stand_in.models)
    app.router.add_get("/metrics", stand_in.metrics)
    app.router.add_get("/version", stand_in.version)
    app.router.add_get("/counts", stand_in.told)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="stand-in")
    parser.add_argument("--key", default="")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--wrong", type=float, default=0.0)
    parser.add_argument("--faults", default="")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--says", default="as told")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--slow-start", type=float, default=0.0)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--renders", action="store_true")
    parser.add_argument("--opens", action="store_true")
    parser.add_argument("--no-thought", action="store_true")
    parser.add_argument("--chunk-latency", type=float, default=0.0)
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(130)
