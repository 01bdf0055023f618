"""Traces that their budget cut off in the middle of the thought: continued from where they stopped, not asked anew.

What came first is durable before more is asked for (traces/unfinished/), so that a run that goes on continues it too.
An engine that renders conversations (vLLM) goes on word for word (`pipeline/rendered.py`); another must continue an
assistant's message (`continue_final_message`, as SGLang does). One that was cut in its answer stays cut: many templates
take the thought out of a message that holds a whole one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import pyarrow as pa

from pipeline.engine import Completion, Request
from pipeline.journal import Journal
from pipeline.parts import read_rows
from pipeline.records import Trace
from pipeline.rendered import Rest
from teacher.thought import CLOSE, OPEN

UNFINISHED = "unfinished"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("reasoning", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("max_tokens", pa.int64()),
        ("attempts", pa.int32()),
        ("started", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
OPENING = "<think>\n"
"""What templates that open the thought put before it, and engines leave out of the text."""
LOOKED_AT = 100
"""Traces of earlier starts that are looked at for what the template does."""
SEEN, FOREIGN = 5, 3
"""Continuations, and tokens in the middle of these, from which on a template is told to put something of its own before
what is continued (Qwen3's: an empty thought, four tokens); at the seam one or two may come or go."""


class Continuing:
    """Continues truncated completions within a second budget. Use as a context manager."""

    def __init__(self, pool: Path, tokens: int) -> None:
        """Set up for a pool; `tokens` is the second budget, 0 for none."""
        self.pool = pool
        self.journal = Journal(pool / UNFINISHED, SCHEMA)
        self.tokens = tokens
        self.parts: dict[str, Completion] = {}
        self.template_opens = False
        """Whether a thought was seen that closed and had not been opened in the text."""
        self._grown: list[int] = []
        """By how many tokens prompts were longer than what they continue."""

    def trouble(self) -> str | None:
        """Return why nothing should be continued at this engine: its template changes what is continued."""
        if len(self._grown) < SEEN or (grown := median(self._grown)) < FOREIGN:
            return None
        return (
            f"the engine's chat template puts {grown:.0f} tokens of its own before a thought that is continued (as "
            "Qwen3's, an empty thought): set sampling.continue_tokens = 0 and sampling.max_tokens to the sum of both"
        )

    def __enter__(self) -> Continuing:
        if self.tokens:
            self.journal.__enter__()
            self.journal.roll()
            with Journal(self.pool, Trace.SCHEMA) as pool:
                held = pool.ids()
            for row in read_rows(self.journal.folder):
                if row["id"] not in held:
                    self.parts[row["id"]] = _part(row)
                    self._look(self.parts[row["id"]])
        # What the engine's template does is told by what it gave before.
        for row in islice(read_rows(self.pool, columns=["text"]), LOOKED_AT):
            self.template_opens = self.template_opens or _closes_alone(row["text"])
        return self

    def __exit__(self, *exception: object) -> None:
        if self.tokens:
            self.journal.roll()
            self.journal.__exit__(*exception)

    def begun(self, request: Request) -> Request:
        """Return the request, or the one that continues what came of it in an earlier run."""
        part = self.parts.get(request.id)
        return self._more(request, part) if part is not None else request

    def follow(self, request: Request, completion: Completion) -> Request | None:
        """Return the request that continues a completion, None where it ended by itself or is not to go on."""
        if request.id not in self.parts:
            self._look(completion)
        cut = completion.finish_reason == "length" and request.id not in self.parts
        if not self.tokens or not cut or CLOSE.search(completion.text) or (completion.reasoning and completion.text):
            return None
        completion = replace(completion, max_tokens=int(request.params["max_tokens"]))
        self.parts[request.id] = completion
        row = {name: getattr(completion, name) for name in SCHEMA.names if name != "id"}
        self.journal.append([{"id": request.id, **row}])
        return self._more(request, completion)

    def whole(self, request: Request, completion: Completion) -> Completion:
        """Return a completion with what came before it, if it continues something."""
        first = self.parts.pop(request.id, None)
        if first is None:
            return completion
        if completion.prompt_tokens and first.prompt_tokens:
            self._grown.append(completion.prompt_tokens - first.prompt_tokens - first.completion_tokens)
        text, more = completion.text, completion.reasoning or ""
        if completion.plain and first.reasoning:
            closed = CLOSE.search(text)
            more, text = (text[: closed.start()], text[closed.end() :].lstrip()) if closed else (text, "")
        return replace(
            completion,
            text=first.text + text,
            reasoning=(first.reasoning or "") + more or None,
            prompt_tokens=first.prompt_tokens,
            read_again=completion.prompt_tokens,
            completion_tokens=first.completion_tokens + completion.completion_tokens,
            attempts=first.attempts + completion.attempts,
            started=first.started,
            seconds=first.seconds + completion.seconds,
            max_tokens=int(request.params["max_tokens"]) + first.max_tokens,
        )

    def refused(self, request: Request) -> Completion | None:
        """Return an end without text for a continuation that the engine refuses (its context is full), else None."""
        first = self.parts.get(request.id)
        if first is None:
            return None
        return replace(first, text="", reasoning=None, prompt_tokens=0, completion_tokens=0, attempts=0, seconds=0.0)

    def _look(self, completion: Completion) -> None:
        if completion.reasoning or _closes_alone(completion.text):
            self.template_opens = True

    def _more(self, request: Request, part: Completion) -> Request:
        messages = list(request.messages)
        before = ""
        opened = OPEN.match(part.text)
        if messages[-1]["role"] == "assistant":
            before = messages.pop()["content"]
        elif self.template_opens and not opened:
            before = OPENING
        messages.append({"role": "assistant", "content": before + (part.reasoning or "") + part.text})
        params = {**request.params, "max_tokens": self.tokens}
        opening, said = (opened[0], part.text[opened.end() :]) if opened else ("", part.text)
        if part.reasoning:
            # The engine took the tag away, if the model wrote it.
            opening, said = OPENING.rstrip() if part.reasoning[0] == "\n" else OPENING, part.reasoning
        rest = Rest(request.messages, params, opening, said)
        return Request(
            request.id, messages, {**params, "continue_final_message": True, "add_generation_prompt": False}, rest
        )


def _closes_alone(text: str) -> bool:
    return bool(CLOSE.search(text)) and not OPEN.match(text)


def _part(row: dict[str, object]) -> Completion:
    values = {**row, "finish_reason": "length", "endpoint": ""}
    del values["id"]
    return Completion(**values)  # type: ignore[arg-type]
