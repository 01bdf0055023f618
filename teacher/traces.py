"""The stage `traces`: ask the teacher for what the pool lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filtering import sandbox
from filtering.rules import loop_rule
from filtering.settings import FilterSettings, VerifySettings
from pipeline.engine import Endpoint
from pipeline.files import write_whole
from pipeline.manifest import Counts
from pipeline.progress import say
from pipeline.recipe import Recipe
from pipeline.records import Problem, content_hash
from pipeline.stages import Job, Outcome
from pipeline.tally import Tally
from teacher.adaptive import Adaptive, sample_adaptively
from teacher.continuing import Continuing
from teacher.cost import Spent, price_of
from teacher.drafts import check_prompt
from teacher.endpoints import listing, remote_endpoints
from teacher.imports import adopt
from teacher.live import Live
from teacher.meter import SPENT, Meter
from teacher.problems import load_problems
from teacher.replicas import Engine
from teacher.sampling import Ask, held_ids, sample, wanted_ids
from teacher.serve import at_revision, serving
from teacher.settings import SamplingSettings, ServedModel, TeacherSettings

ENOUGH = 20
"""Traces sampled now, from which on they tell how fast a teacher is."""


@dataclass
class Filled:
    """What filling a pool came to."""

    tally: Tally
    spent: Spent
    wanted: int
    had: int
    """Of the wanted traces, those that are there."""
    over: str
    """The budget that is spent, in words; "" where none is."""
    facts: dict[str, Any]
    speeds: dict[str, float] = field(default_factory=dict)
    """By route, completion tokens a second while it was asked; none of one that was asked too little to tell."""


def run(job: Job) -> Outcome:
    """Sample the missing traces into traces/; a pool only grows, whatever the recipe has become."""
    finished = adopt(job.folder("problems"), job.out)
    problems = [one for one in load_problems(job.folder("problems")).values() if one.id not in finished]
    filled = fill(job.recipe, job.run, job.out, problems)
    tally, spent = filled.tally, filled.spent
    if filled.over:
        say(f"traces: {filled.over}; {filled.had} traces are there: raise it and run the same command again for more")
    held = sorted(held_ids(job.out))
    missing = filled.wanted - filled.had
    return Outcome(
        # The pool may hold more than this recipe asks for: traces of earlier settings.
        Counts(filled.wanted + len(finished), filled.had + len(finished), {"over_budget": missing} if missing else {}),
        {
            "pool": len(held),
            **({"imported": len(finished)} if finished else {}),
            "sampled_now": tally.finished,
            "retries": tally.retries,
            "continued": tally.continued,
            "cut": tally.cut,
            "tokens_saved_by_cutting": tally.saved,
            **({"tokens_wasted": tally.wasted} if tally.wasted else {}),
            "tokens_now": spent.tokens,
            **({"gpu_hours_now": round(spent.gpu_hours, 4)} if spent.gpu_hours else {}),
            **({"dollars_now": round(spent.dollars, 4)} if spent.dollars is not None else {}),
            **({"over_budget": filled.over} if filled.over else {}),
            **filled.facts,
        },
        output_hash=content_hash(held),
    )


def revisit(facts: dict[str, Any]) -> str:
    """Return why sampling should go on though it is complete: programs were not run, and now they can be. Else ""."""
    return next((why for fact in facts.values() if isinstance(fact, dict) and (why := sandbox.revisit(fact))), "")


@dataclass(frozen=True)
class Route:
    """A teacher, how it is asked, and the problems that go to it."""

    name: str
    teacher: ServedModel
    sampling: SamplingSettings
    problems: list[Problem]


def routes(recipe: Recipe, problems: Sequence[Problem]) -> list[Route]:
    """Return where each problem goes: to its domain's own teacher, or to the one of all others."""
    teacher, sampling = recipe[TeacherSettings], recipe[SamplingSettings]
    own = dict(teacher.domains)
    rest = [problem for problem in problems if problem.domain not in own]
    found = [Route("teacher", teacher, sampling, rest)] if rest else []
    for domain, other in own.items():
        its = [problem for problem in problems if problem.domain == domain]
        if its:
            found.append(Route(f"teacher-{domain}", other, sampling_of(recipe, domain), its))
    return found


def sampling_of(recipe: Recipe, domain: str) -> SamplingSettings:
    """Return how a domain is asked: [sampling], with what the domain's own teacher is asked otherwise."""
    sampling = recipe[SamplingSettings]
    other = next((one for name, one in recipe[TeacherSettings].domains.items() if name == domain), None)
    if other is None:
        return sampling
    return SamplingSettings.model_validate({**sampling.model_dump(exclude_unset=True), **other.sampling})


def fill(recipe: Recipe, run: Path, pool: Path, problems: Sequence[Problem]) -> Filled:
    """Sample what a pool lacks of these problems as the recipe says; start teachers that are ours, one after another.

    Raises:
        UserError: see `teacher.sampling.sample`.
    """
    meter = Meter(recipe[SamplingSettings], pool / SPENT)
    filled = Filled(Tally(), Spent(0, 0.0, None), 0, 0, "", {})
    asked = routes(recipe, problems)
    for route in asked:
        # All that can be seen to be wrong is seen before the first of them costs anything.
        check_prompt(route.sampling.prompt, route.problems)
        meter.check(price_of(route.teacher.price, route.teacher.served_name, route.teacher.model))
        remote_endpoints(route.teacher)
    for route in asked:
        one = _fill(recipe, run, pool, route, meter)
        filled = Filled(
            filled.tally + one.tally,
            filled.spent + one.spent,
            filled.wanted + one.wanted,
            filled.had + one.had,
            one.over or filled.over,
            {**filled.facts, **({route.name: one.facts} if one.facts else {})},
            {**filled.speeds, **one.speeds},
        )
    return filled


def _fill(recipe: Recipe, run: Path, pool: Path, route: Route, meter: Meter) -> Filled:
    teacher, sampling, filters = route.teacher, route.sampling, recipe[FilterSettings]
    price = price_of(teacher.price, teacher.served_name, teacher.model)
    facts: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(meter.running(price, sampling.max_tokens))
        engines: list[Engine] = []

        def endpoints() -> list[Endpoint]:
            if remote := remote_endpoints(teacher):
                return remote
            settings = at_revision(teacher.engine, teacher.revision)
            engines.append(stack.enter_context(serving(teacher.model, settings, run, route.name)))
            return engines[0].endpoints

        common: dict[str, Any] = {
            "model": teacher.model,
            "revision": teacher.identity,
            "seed": recipe.seed,
            "listed": listing(teacher),
            "loops": loop_rule(filters.rules) if sampling.cut_loops else None,
            "price": price,
            "gate": meter.gate,
            "continuing": stack.enter_context(Continuing(pool, sampling.continue_tokens)),
            "live": Live(meter.spent, sampling.canary),
        }
        if sampling.keep:
            found = sample_adaptively(
                route.problems,
                pool,
                sampling,
                recipe[VerifySettings],
                filters,
                endpoints=endpoints,
                engine=lambda: engines[0] if engines else None,
                **common,
            )
            tally, wanted, had = found.tally, len(found.wanted), len(found.wanted)
            facts = {
                "problems": found.asked.ends(),
                "priors": found.asked.priors(),
                "pass_rates": found.pass_rates,
                **sandbox.lacked(found.stuck),
            }
            _list_hopeless(pool / f"hopeless-{route.name}.jsonl", found.asked)
        else:
            ids = wanted_ids(route.problems, teacher.model, teacher.identity, sampling)
            missing = ids.keys() - held_ids(pool)
            # With nothing to ask for, what an earlier start left in the journal still becomes a part.
            asks = bool(missing) and not meter.over
            tally = sample(
                [Ask(route.problems if asks else [], pool, sampling)],
                endpoints=endpoints() if asks else [],
                what="traces",
                engine=engines[0] if engines else None,
                **common,
            )
            wanted, had = len(ids), len(ids) - len(missing) + tally.finished
        spent = meter.spent(tally)
        speeds = {route.name: tally.completion_tokens / tally.seconds} if tally.finished >= ENOUGH else {}
    return Filled(tally, spent, wanted, had, meter.over, facts, speeds)


def _list_hopeless(path: Path, asked: Adaptive) -> None:
    """Leave the problems that were given up as hopeless: whoever looks after the prompts looks at these."""
    rows = [
        {"problem_id": problem.id, "tries": standing.failed, "question": problem.messages[-1]["content"]}
        for problem, standing in asked.hopeless()
    ]
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
