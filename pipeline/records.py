"""The four records that stages exchange, their identities and their Arrow schemas.

`Problem` -> `Trace` -> `Verdict` -> `Example`. Identity is content: see `problem_id` and `trace_id`.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Self

import pyarrow as pa
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


class State(StrEnum):
    """What a verifier found. Undecided is never counted as wrong, nor as a try in a pass rate."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNDECIDED = "undecided"


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


class Record:
    """Shared by the four records: to and from the plain dictionaries that JSON and Arrow take."""

    SCHEMA: ClassVar[pa.Schema]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in schema order."""
        return {name: getattr(self, name) for name in self.SCHEMA.names}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        """Build a record from a dictionary; keys this version does not know are left out."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in row.items() if key in known})


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """What is asked of the teacher: a conversation that ends with a user's turn.

    `draft` is an answer that is to be written anew, where there is one: it is put into the prompt, beside the question,
    and is no part of the conversation that is learned from.
    """

    SCHEMA = pa.schema(
        [
            ("id", pa.string()),
            ("messages", MESSAGES),
            ("domain", pa.string()),
            ("source", pa.string()),
            ("license", pa.string()),
            ("reference", pa.string()),
            ("verifier", pa.string()),
            ("draft", pa.string()),
        ]
    )

    id: str
    messages: list[Message]
    domain: str
    source: str
    license: str
    reference: str | None
    verifier: str
    draft: str | None = None

    @classmethod
    def of(cls, messages: Sequence[Message], *, draft: str | None = None, **rest: Any) -> Problem:
        """Build a problem and its id from its messages and its draft."""
        return cls(id=problem_id(messages, draft), messages=list(messages), draft=draft, **rest)


CUT_OFF = frozenset({"length", "loop"})
"""Finish reasons of what did not come to its own end: by its budget, or because it went round in a loop."""


@dataclass(frozen=True, slots=True)
class Trace(Record):
    """One completion of the teacher, thought and answer already apart.

    `thought` is None where there was none; `answer` is None where the thought never closed.
    `seed` is None where the engine takes none. Times are Unix seconds and seconds; `text` is what the
    engine sent, untouched; `engine` names it with its version where it tells; `cost` is in dollars, None
    where tokens have no price.
    """

    SCHEMA = pa.schema(
        [
            ("id", pa.string()),
            ("problem_id", pa.string()),
            ("sample", pa.int32()),
            ("thought", pa.string()),
            ("answer", pa.string()),
            ("text", pa.string()),
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("teacher", pa.string()),
            ("revision", pa.string()),
            ("template", pa.string()),
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("top_k", pa.int32()),
            ("max_tokens", pa.int32()),
            ("seed", pa.int64()),
            ("endpoint", pa.string()),
            ("attempts", pa.int32()),
            ("started", pa.float64()),
            ("seconds", pa.float64()),
            ("engine", pa.string()),
            ("cost", pa.float64()),
        ]
    )

    id: str
    problem_id: str
    sample: int
    thought: str | None
    answer: str | None
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    teacher: str
    revision: str
    template: str
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int | None
    endpoint: str
    attempts: int
    started: float
    seconds: float
    engine: str | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """What a verifier says of a trace: the state, who decided, why, and the answer it read."""

    SCHEMA = pa.schema(
        [
            ("trace_id", pa.string()),
            ("problem_id", pa.string()),
            ("state", pa.string()),
            ("decided_by", pa.string()),
            ("why", pa.string()),
            ("extracted", pa.string()),
        ]
    )

    trace_id: str
    problem_id: str
    state: State
    decided_by: str
    why: str
    extracted: str | None


@dataclass(frozen=True, slots=True)
class Example(Record):
    """One published row: the conversation with the teacher's thought and answer, and its lineage."""

    SCHEMA = pa.schema(
        [
            ("uuid", pa.string()),
            ("messages", MESSAGES),
            ("problem", pa.string()),
            ("answer", pa.string()),
            ("domain", pa.string()),
            ("source", pa.string()),
            ("license", pa.string()),
            ("problem_id", pa.string()),
            ("teacher", pa.string()),
            ("revision", pa.string()),
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("verdict", pa.string()),
            ("decided_by", pa.string()),
            ("completion_tokens", pa.int32()),
            ("reason", pa.string()),
        ]
    )

    uuid: str
    messages: list[Message]
    problem: str
    answer: str | None
    domain: str
    source: str
    license: str
    problem_id: str
    teacher: str
    revision: str
    temperature: float
    top_p: float
    verdict: str
    decided_by: str
    completion_tokens: int
    reason: str | None


def content_hash(*parts: Any) -> str:
    """Return 32 hex digits over the canonical JSON of the parts."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def normalised(text: str) -> str:
    """Return the text in Unicode NFC with line ends as \\n, without trailing blanks or outer white space."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def problem_id(messages: Sequence[Message], draft: str | None = None) -> str:
    """Return a problem's id: a hash of its normalised messages, its draft if any, and nothing else (not its source)."""
    asked = [[message["role"], normalised(message["content"])] for message in messages]
    return content_hash("problem", asked, *([] if draft is None else [normalised(draft)]))


def trace_id(
    problem: str,
    sample: int,
    *,
    teacher: str,
    revision: str,
    template: str,
    temperature: float,
    top_p: float,
    top_k: int,
) -> str:
    """Return a trace's id.

    It never covers budgets, endpoints, concurrency or retries: raising `max_tokens` must not orphan
    a pool that was paid for.
    """
    return content_hash(
        "trace", problem, sample, teacher, revision, template, float(temperature), float(top_p), int(top_k)
    )
