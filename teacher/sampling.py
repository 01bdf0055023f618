"""Sampling: which traces a recipe asks for, how a request is made, how a completion becomes a trace.

Serves the stage `traces` and the benchmarks alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.driver import Driver, DriveSettings, Tally
from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.progress import Progress
from pipeline.records import Message, Problem, Trace, content_hash, trace_id
from teacher.serve import Engine
from teacher.settings import SamplingSettings
from teacher.thought import split, split_at_final_answer


def template_hash(settings: SamplingSettings) -> str:
    """Return the hash of what is put around a problem: system, prompt, examples, prefill."""
    return content_hash("template", settings.system, settings.prompt, settings.examples, settings.prefill)[:16]


def wanted_ids(
    problems: Sequence[Problem], model: str, revision: str, settings: SamplingSettings
) -> dict[str, tuple[str, int]]:
    """Return the ids of the traces that these settings ask for, each with (problem id, sample number)."""
    template = template_hash(settings)
    return {
        trace_id(
            problem.id,
            sample,
            teacher=model,
            revision=revision,
            template=template,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        ): (problem.id, sample)
        # Sample by sample, so that a run cut short has asked every problem alike.
        for sample in range(settings.samples)
        for problem in problems
    }


def held_ids(pool: Path) -> set[str]:
    """Return the ids of all traces that a pool holds, rolled into parts or not yet."""
    with Journal(pool, Trace.SCHEMA) as journal:
        return journal.ids()


def messages_for(problem: Problem, settings: SamplingSettings) -> list[Message]:
    """Return the conversation that is sent: the problem inside the recipe's template."""
    *before, last = problem.messages
    messages: list[Message] = []
    if settings.system:
        messages.append({"role": "system", "content": settings.system})
    question = settings.prompt.replace("{question}", last["content"])
    messages += [*settings.examples, *before, {"role": "user", "content": question}]
    if settings.prefill:
        messages.append({"role": "assistant", "content": settings.prefill})
    return messages


def seed_for(id: str, seed: int) -> int:
    """Return a trace's own seed, below 2**31: by its id and the recipe's seed, never by its place in the queue."""
    return int(content_hash("seed", id, seed)[:8], 16) % 2**31


@dataclass(frozen=True)
class Ask:
    """What is asked for: every problem as often as the settings say, for a pool."""

    problems: Sequence[Problem]
    pool: Path
    settings: SamplingSettings


def sample(
    asks: Sequence[Ask],
    *,
    model: str,
    revision: str,
    endpoints: Sequence[Endpoint],
    seed: int,
    what: str,
    engine: Engine | None = None,
) -> Tally:
    """Sample what the pools lack, all in one stream; leave them whole, as Parquet parts of `Trace` rows.

    A trace that several pools lack is sampled once. How requests are driven is as the first of the asks says.

    Raises:
        UserError: the engine refuses or is gone, the disk is full, or some samples were given up
            after all retries. All that came back is in the pools.
    """
    wanted: dict[str, _Wanted] = {}
    with ExitStack() as stack:
        journals = []
        for ask in asks:
            journals.append(stack.enter_context(Journal(ask.pool, Trace.SCHEMA)))
            held = journals[-1].ids()
            by_id = {problem.id: problem for problem in ask.problems}
            for id, (problem, number) in wanted_ids(ask.problems, model, revision, ask.settings).items():
                entry = wanted.setdefault(id, _Wanted(by_id[problem], number, ask.settings))
                if id not in held:
                    entry.lacking.append(journals[-1])
        missing = [id for id, entry in wanted.items() if entry.lacking]
        tally = Tally()
        driving = asks[0].settings
        if missing:
            driver = Driver(
                list(endpoints),
                _Pools(wanted),
                lambda request, completion: _row(request, completion, wanted[request.id], model, revision),
                DriveSettings(driving.concurrency, driving.timeout_s, driving.attempts, driving.patience_s),
                engine.trouble if engine else lambda: None,
            )
            seeded = engine is None or engine.takes_seeds
            with Progress(what, len(wanted), len(wanted) - len(missing)) as progress:
                tally = driver.drive((_request(id, wanted[id], seed if seeded else None) for id in missing), progress)
        for journal in journals:
            journal.roll()
    if tally.given_up:
        raise UserError(
            f"{what}: {len(tally.given_up)} of {len(wanted)} samples were given up after {driving.attempts} attempts "
            f"each (last: {list(tally.given_up.values())[-1]}); the others are kept",
            "run the same command again for those alone",
            "raise sampling.attempts or sampling.timeout_s",
        )
    return tally


@dataclass
class _Wanted:
    """One trace to sample, and the pools that lack it."""

    problem: Problem
    number: int
    settings: SamplingSettings
    lacking: list[Journal] = field(default_factory=list)


class _Pools:
    """The journals of several pools as one: a row goes into each that lacks it."""

    def __init__(self, wanted: Mapping[str, _Wanted]) -> None:
        self.wanted = wanted
        self.used: dict[Journal, None] = {}

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        of: dict[Journal, list[dict[str, Any]]] = {}
        for row in rows:
            for journal in self.wanted[row["id"]].lacking:
                of.setdefault(journal, []).append(row)
        for journal, its in of.items():
            journal.append(its)
        self.used.update(dict.fromkeys(of))

    def sync_if_due(self) -> None:
        for journal in self.used:
            journal.sync_if_due()


def _request(id: str, wanted: _Wanted, seed: int | None) -> Request:
    settings = wanted.settings
    params: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        **({} if seed is None else {"seed": seed_for(id, seed)}),
        **({"top_k": settings.top_k} if settings.top_k > 0 else {}),
        **({"continue_final_message": True, "add_generation_prompt": False} if settings.prefill else {}),
        **settings.extra_body,
    }
    return Request(id, messages_for(wanted.problem, settings), params)


def _row(request: Request, completion: Completion, wanted: _Wanted, model: str, revision: str) -> dict[str, Any]:
    settings = wanted.settings
    if settings.split == "final_answer" and not completion.reasoning:
        thought, answer = split_at_final_answer(completion.text)
    else:
        thought, answer = split(completion.text, completion.reasoning, settings.prefill)
    return Trace(
        id=request.id,
        problem_id=wanted.problem.id,
        sample=wanted.number,
        thought=thought,
        answer=answer,
        text=completion.text,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        teacher=model,
        revision=revision,
        template=template_hash(settings),
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_tokens=settings.max_tokens,
        seed=request.params.get("seed"),
        endpoint=completion.endpoint,
        attempts=completion.attempts,
        started=completion.started,
        seconds=completion.seconds,
    ).to_dict()
