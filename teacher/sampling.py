"""Sampling: which traces a recipe asks for, how a request is made, how a completion becomes a trace.

Serves the stage `traces` and the benchmarks alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def sample(
    problems: Sequence[Problem],
    pool: Path,
    *,
    model: str,
    revision: str,
    settings: SamplingSettings,
    endpoints: Sequence[Endpoint],
    seed: int,
    what: str,
    engine: Engine | None = None,
) -> Tally:
    """Sample what the pool lacks; leave it whole, as Parquet parts of `Trace` rows in `pool`.

    Raises:
        UserError: the engine refuses or is gone, the disk is full, or some samples were given up
            after all retries. All that came back is in the pool.
    """
    by_id = {problem.id: problem for problem in problems}
    wanted = wanted_ids(problems, model, revision, settings)
    template = template_hash(settings)
    opened = {"continue_final_message": True, "add_generation_prompt": False} if settings.prefill else {}

    def requests(missing: list[str]) -> Iterator[Request]:
        for id in missing:
            params: dict[str, Any] = {
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "max_tokens": settings.max_tokens,
                **({"seed": seed_for(id, seed)} if engine is None or engine.takes_seeds else {}),
                **({"top_k": settings.top_k} if settings.top_k > 0 else {}),
                **opened,
                **settings.extra_body,
            }
            yield Request(id, messages_for(by_id[wanted[id][0]], settings), params)

    def to_row(request: Request, completion: Completion) -> dict[str, Any]:
        if settings.split == "final_answer" and not completion.reasoning:
            thought, answer = split_at_final_answer(completion.text)
        else:
            thought, answer = split(completion.text, completion.reasoning, settings.prefill)
        problem, number = wanted[request.id]
        return Trace(
            id=request.id,
            problem_id=problem,
            sample=number,
            thought=thought,
            answer=answer,
            text=completion.text,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            teacher=model,
            revision=revision,
            template=template,
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

    with Journal(pool, Trace.SCHEMA) as journal:
        held = journal.ids()
        missing = [id for id in wanted if id not in held]
        tally = Tally()
        if missing:
            driver = Driver(
                list(endpoints),
                journal,
                to_row,
                DriveSettings(settings.concurrency, settings.timeout_s, settings.attempts, settings.patience_s),
                engine.trouble if engine else lambda: None,
            )
            with Progress(what, len(wanted), len(wanted) - len(missing)) as progress:
                tally = driver.drive(requests(missing), progress)
        journal.roll()
    if tally.given_up:
        raise UserError(
            f"{what}: {len(tally.given_up)} of {len(wanted)} samples were given up after {settings.attempts} attempts "
            f"each (last: {list(tally.given_up.values())[-1]}); the others are kept",
            "run the same command again for those alone",
            "raise sampling.attempts or sampling.timeout_s",
        )
    return tally
