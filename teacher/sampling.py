"""Sampling: which traces a recipe asks for, how a request is made, how a completion becomes a trace.

Serves the stage `traces` and the benchmarks alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine import Completion, Endpoint, Request
from pipeline.errors import UserError
from pipeline.journal import Journal
from pipeline.progress import Progress
from pipeline.records import CUT_OFF, Message, Problem, Trace, content_hash, trace_id
from pipeline.tally import Tally
from teacher.continuing import Continuing
from teacher.cost import Price
from teacher.drafts import PLACE
from teacher.driving import check_given_up, driver_for
from teacher.live import Live
from teacher.meter import Gate, always
from teacher.replicas import Engine
from teacher.settings import AskSettings
from teacher.thought import split, split_at_final_answer

PLACES = re.compile("{question}|" + re.escape(PLACE))


def template_hash(settings: AskSettings) -> str:
    """Return the hash of what is put around a problem: system, prompt, examples, prefill, further request fields."""
    parts = [settings.system, settings.prompt, settings.examples, settings.prefill]
    # What was sampled before there was such a setting keeps its identity.
    later = [setting for setting in (settings.plain_up_to, settings.extra_body) if setting]
    return content_hash("template", *parts, *later)[:16]


def wanted_ids(
    problems: Sequence[Problem], model: str, revision: str, settings: AskSettings
) -> dict[str, tuple[str, int]]:
    """Return the ids of the traces that these settings ask for, each with (problem id, sample number)."""
    template = template_hash(settings)
    return {
        id_of(problem.id, sample, model, revision, template, settings): (problem.id, sample)
        # Sample by sample, so that a run cut short has asked every problem alike.
        for sample in range(settings.samples)
        for problem in problems
    }


def id_of(problem: str, sample: int, model: str, revision: str, template: str, settings: AskSettings) -> str:
    """Return a trace's id under these settings; `template` is their `template_hash`."""
    return trace_id(
        problem,
        sample,
        teacher=model,
        revision=revision,
        template=template,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
    )


def held_ids(pool: Path) -> set[str]:
    """Return the ids of all traces that a pool holds, rolled into parts or not yet."""
    with Journal(pool, Trace.SCHEMA) as journal:
        return journal.ids()


def messages_for(problem: Problem, settings: AskSettings) -> list[Message]:
    """Return the conversation that is sent: the problem inside the recipe's template."""
    *before, last = problem.messages
    if is_plain(problem, settings):
        return list(problem.messages)
    messages: list[Message] = []
    if settings.system:
        messages.append({"role": "system", "content": settings.system})
    parts = {"{question}": last["content"], PLACE: problem.draft or ""}
    question = PLACES.sub(lambda place: parts[place[0]], settings.prompt)
    messages += [*settings.examples, *before, {"role": "user", "content": question}]
    if settings.prefill:
        messages.append({"role": "assistant", "content": settings.prefill})
    return messages


def is_plain(problem: Problem, settings: AskSettings) -> bool:
    """Return whether a problem is so short that it is asked as it is."""
    return (
        problem.draft is None
        and len(problem.messages) == 1
        and len(problem.messages[-1]["content"]) <= settings.plain_up_to
    )


def seed_for(id: str, seed: int) -> int:
    """Return a trace's own seed, below 2**31: by its id and the recipe's seed, never by its place in the queue."""
    return int(content_hash("seed", id, seed)[:8], 16) % 2**31


@dataclass(frozen=True)
class Ask:
    """What is asked for: every problem as often as the settings say, for a pool."""

    problems: Sequence[Problem]
    pool: Path
    settings: AskSettings


def sample(
    asks: Sequence[Ask],
    *,
    model: str,
    revision: str,
    endpoints: Sequence[Endpoint],
    seed: int,
    what: str,
    engine: Engine | None = None,
    listed: Callable[[], list[Endpoint]] | None = None,
    loops: Callable[[str], bool] | None = None,
    gate: Callable[[Tally], Gate] = always,
    live: Live | None = None,
    continuing: Continuing | None = None,
    price: Price | None = None,
) -> Tally:
    """Sample what the pools lack, all in one stream; leave them whole, as Parquet parts of `Trace` rows.

    A trace that several pools lack is sampled once. How requests are driven is as the first of the asks says.

    Args:
        listed: tells which endpoints there are by now; see `Driver`.
        loops: tells a text that goes round in a loop, whose stream is cut.
        gate: asked before each request: whether a budget lets it out.
        live: told of each trace; says what progress shows, and whether to go on.
        continuing: continues what its budget cut off.
        price: what tokens cost.

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

            def to_row(request: Request, completion: Completion) -> dict[str, Any]:
                entry = wanted[request.id]
                completion = continuing.whole(request, completion) if continuing else completion
                opens = continuing is not None and continuing.template_opens
                trace = trace_of(
                    request, completion, entry.problem.id, entry.number, entry.settings, model, revision, price, opens
                )
                if live is not None and not is_plain(entry.problem, entry.settings):
                    live.saw(trace)
                return trace.to_dict()

            driver = driver_for(
                endpoints,
                _Pools(wanted, journals),
                to_row,
                driving,
                engine=engine,
                listed=listed,
                loops=loops,
                live=live,
                continuing=continuing,
            )
            tally = driver.tally
            seeded = engine is None or engine.takes_seeds
            with Progress(what, len(wanted), len(wanted) - len(missing)) as progress:

                def requests() -> Iterator[Request | None]:
                    for id in missing:
                        while (said := gate(tally)) == "wait":
                            yield None
                        if said == "stop":
                            return
                        request = _request(id, wanted[id], seed if seeded else None)
                        yield continuing.begun(request) if continuing else request

                driver.drive(requests(), progress)
        for journal in journals:
            journal.roll()
    check_given_up(tally, what, len(wanted), driving.attempts)
    return tally


@dataclass
class _Wanted:
    """One trace to sample, and the pools that lack it."""

    problem: Problem
    number: int
    settings: AskSettings
    lacking: list[Journal] = field(default_factory=list)


class _Pools:
    """The journals of several pools as one: a row goes into each that lacks it."""

    def __init__(self, wanted: Mapping[str, _Wanted], journals: Sequence[Journal]) -> None:
        self.wanted = wanted
        self.journals = journals

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        of: dict[Journal, list[dict[str, Any]]] = {}
        for row in rows:
            for journal in self.wanted[row["id"]].lacking:
                of.setdefault(journal, []).append(row)
        for journal, its in of.items():
            journal.append(its)

    def sync_if_due(self) -> None:
        for journal in self.journals:
            journal.sync_if_due()

    def nearly_full(self) -> UserError | None:
        return next(filter(None, (journal.nearly_full() for journal in self.journals)), None)


def _request(id: str, wanted: _Wanted, seed: int | None) -> Request:
    return request_for(id, wanted.problem, wanted.settings, seed)


def request_for(id: str, problem: Problem, settings: AskSettings, seed: int | None) -> Request:
    """Return the request for a trace; without a seed where the engine takes none."""
    opened = settings.prefill and not is_plain(problem, settings)
    params: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        **({} if seed is None else {"seed": seed_for(id, seed)}),
        **({"top_k": settings.top_k} if settings.top_k > 0 else {}),
        **({"continue_final_message": True, "add_generation_prompt": False} if opened else {}),
        **settings.extra_body,
    }
    return Request(id, messages_for(problem, settings), params)


def trace_of(
    request: Request,
    completion: Completion,
    problem: str,
    number: int,
    settings: AskSettings,
    model: str,
    revision: str,
    price: Price | None = None,
    template_opens: bool = False,
) -> Trace:
    """Return the trace that a completion is, thought and answer apart.

    Args:
        price: what tokens cost.
        template_opens: whether the engine's template is known to open the thought.
    """
    if settings.split == "final_answer" and not completion.reasoning:
        thought, answer = split_at_final_answer(completion.text)
    else:
        prefill = settings.prefill if request.params.get("continue_final_message") else ""
        cut = completion.finish_reason in CUT_OFF
        thought, answer = split(completion.text, completion.reasoning, prefill, template_opens and cut)
    read = completion.prompt_tokens + completion.read_again
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
        template=template_hash(settings),
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_tokens=completion.max_tokens or settings.max_tokens,
        seed=request.params.get("seed"),
        endpoint=completion.endpoint,
        attempts=completion.attempts,
        started=completion.started,
        seconds=completion.seconds,
        engine=completion.engine or None,
        cost=price.of_tokens(read, completion.completion_tokens) if price else None,
    )
