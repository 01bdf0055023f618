"""`retort plan`: what a recipe would cost and give, from a pilot of a few hundred of its problems.

The pilot's traces go into the run's own pool, where the run finds them again: nothing of it is paid for twice. It asks
as the recipe asks (`sampling.keep` or a fixed number) and judges as the recipe judges; intervals are of 95%, by drawing
the pilot's problems again a thousand times, domain by domain. RUN/plan.json keeps the prediction for the report.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filtering.beside import judge
from filtering.deferred import Settlement
from filtering.settings import DatasetSettings, FilterSettings, VerifySettings
from pipeline.files import write_json
from pipeline.parts import read_rows
from pipeline.recipe import Recipe
from pipeline.records import Problem, Trace
from teacher.cost import MILLION, Price, price_of, uses
from teacher.imports import adopt
from teacher.problems import load_problems
from teacher.quota import coverage
from teacher.sampling import wanted_ids
from teacher.settings import SamplingSettings
from teacher.source_settings import ProblemsSettings
from teacher.traces import fill, routes, sampling_of

FILE = "plan.json"
LEAST = 20
"""Problems of a domain in the pilot, where it has so many."""
DRAWS = 1000
SEED = 11


@dataclass(frozen=True)
class Piloted:
    """What became of one problem of the pilot."""

    domain: str
    rows: int
    """Kept traces, at most those that the dataset takes of a problem."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Rate:
    """What a domain's teacher costs, and how fast it writes; None where nothing was sampled to tell."""

    price: Price
    tokens_per_second: float | None


@dataclass(frozen=True)
class Range:
    """An estimate with its interval of 95%."""

    value: float
    low: float
    high: float


def plan(recipe: Recipe, run: Path, count: int) -> str:
    """Say what the quota lacks; with `count` above 0, run the pilot and predict the whole. Return the table.

    Raises:
        UserError: sampling's own trouble.
    """
    rows_a_problem = recipe[DatasetSettings].max_per_problem
    lines = quota_lines(recipe)
    if not count:
        return "\n".join(lines or ["no quota in the recipe, and no pilot asked for (--pilot N)"])
    finished = adopt(run / "problems", run / "traces")
    problems = [one for one in load_problems(run / "problems").values() if one.id not in finished]
    chosen = pilot_of(problems, count, recipe.seed)
    filled = fill(recipe, run, run / "traces", chosen)
    piloted, went = outcomes(recipe, run / "traces", chosen, rows_a_problem)
    rates = {
        problem.domain: Rate(
            price_of(route.teacher.price, route.teacher.served_name, route.teacher.model), filled.speeds.get(route.name)
        )
        for route in routes(recipe, problems)
        for problem in route.problems
    }
    predicted = predict(piloted, Counter(problem.domain for problem in problems), rates)
    found = {
        "pilot": len(chosen),
        "problems": len(problems),
        "sampled_now": filled.tally.finished,
        "tokens_per_second": filled.speeds,
        "tokens_by_use": dict(went["tokens"]),
        "traces_by_use": dict(went["traces"]),
        "predicted": {name: asdict(value) for name, value in predicted.items()},
    }
    write_json(run / FILE, found)
    if filled.over:
        missing = len(chosen) - len(piloted)
        lines.append(
            f"the pilot was cut short: {filled.over}; {missing} of its problems were not asked and are left out"
        )
    return "\n".join([*lines, *predicted_lines(found)])


def pilot_of(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """Return problems drawn for the pilot: each domain by its share, but no fewer than LEAST."""
    by_domain: dict[str, list[Problem]] = {}
    for problem in problems:
        by_domain.setdefault(problem.domain, []).append(problem)
    chosen = []
    for domain, its in by_domain.items():
        wanted = min(len(its), max(LEAST, round(count * len(its) / len(problems))))
        chosen += random.Random(f"{seed}/pilot/{domain}").sample(its, wanted)
    return chosen


def outcomes(
    recipe: Recipe, pool: Path, chosen: Sequence[Problem], rows_a_problem: int
) -> tuple[list[Piloted], dict[str, Counter[str]]]:
    """Judge the pool's traces of these problems; return what became of each, and where tokens went."""
    by_id = {problem.id: problem for problem in chosen}
    # The pool may hold traces of other settings too.
    ids = {
        id
        for route in routes(recipe, chosen)
        for id in wanted_ids(route.problems, route.teacher.model, route.teacher.identity, route.sampling)
    }
    rows = [row for row in read_rows(pool) if row["id"] in ids]
    verify = recipe[VerifySettings]
    states: dict[str, tuple[str, str | None]] = {}
    kept: Counter[str] = Counter()
    with Settlement(verify.workers, verify.timeout_s) as settlement:
        pairs = [(by_id[row["problem_id"]], Trace.from_dict(row)) for row in rows]
        for found in judge(settlement, pairs, recipe[FilterSettings].rules):
            states[found.verdict.trace_id] = (str(found.verdict.state), found.reason)
            kept[found.verdict.problem_id] += found.kept
    prompts: Counter[str] = Counter()
    completions: Counter[str] = Counter()
    for row in rows:
        prompts[row["problem_id"]] += row["prompt_tokens"]
        completions[row["problem_id"]] += row["completion_tokens"]
    asked = {row["problem_id"] for row in rows}
    piloted = [
        Piloted(problem.domain, min(rows_a_problem, kept[id]), prompts[id], completions[id])
        for id, problem in by_id.items()
        if id in asked
    ]
    return piloted, uses(rows, states)


def predict(piloted: Sequence[Piloted], problems: Counter[str], rates: Mapping[str, Rate]) -> dict[str, Range]:
    """Return predictions for all problems: rows, rows by domain, problems covered, tokens, hours and dollars.

    Hours are those of teachers one after another. They, and what is paid by the hour, are left out where the speed of
    one is not known.

    Args:
        problems: how many there are, by domain.
        rates: by domain.
    """
    by_domain: dict[str, list[Piloted]] = {}
    for one in piloted:
        by_domain.setdefault(one.domain, []).append(one)
    draw = np.random.default_rng(SEED)
    names = ["rows", "problems covered", "prompt tokens", "completion tokens"]
    totals = {name: np.zeros(DRAWS + 1) for name in names}
    hours, gpu_hours, dollars = np.zeros(DRAWS + 1), np.zeros(DRAWS + 1), np.zeros(DRAWS + 1)
    timed = all(rates[domain].tokens_per_second for domain in by_domain)
    for domain, its in by_domain.items():
        values = np.array([[one.rows, one.rows > 0, one.prompt_tokens, one.completion_tokens] for one in its], float)
        picks = draw.integers(len(its), size=(DRAWS, len(its)))
        # The first is the pilot itself, the others are draws from it.
        means = np.vstack([values.mean(axis=0), values[picks].mean(axis=1)]) * problems[domain]
        for place, name in enumerate(names):
            totals[name] += means[:, place]
        totals[f"rows, {domain}"] = means[:, 0]
        price, speed = rates[domain].price, rates[domain].tokens_per_second
        dollars += ((price.input or 0) * means[:, 2] + (price.output or 0) * means[:, 3]) / MILLION
        if timed and speed:
            its_hours = means[:, 3] / speed / 3600
            hours += its_hours
            gpu_hours += its_hours * price.gpus
            dollars += its_hours * price.gpus * (price.gpu_hour or 0)
    used = totals["prompt tokens"] + totals["completion tokens"]
    if timed:
        totals["hours"] = hours
    if gpu_hours.any():
        totals["GPU-hours"] = gpu_hours
    rented = any(rates[domain].price.gpu_hour is not None for domain in by_domain)
    if dollars.any() and (timed or not rented):
        totals["dollars"] = dollars
        totals["dollars a row"] = dollars / np.maximum(totals["rows"], 1e-9)
    totals["tokens a row"] = used / np.maximum(totals["rows"], 1e-9)
    return {
        name: Range(float(values[0]), *map(float, np.quantile(values[1:], (0.025, 0.975))))
        for name, values in totals.items()
    }


def quota_lines(recipe: Recipe) -> list[str]:
    """Return a line for each domain with a quota: what its sources give, and what is short."""
    settings, most = recipe[ProblemsSettings], recipe[DatasetSettings].max_per_problem
    asked: dict[str, SamplingSettings] = {domain: sampling_of(recipe, domain) for domain in settings.quota}
    rows = {domain: min(most, sampling.keep or sampling.samples) for domain, sampling in asked.items()}
    lines = []
    for cover in coverage(settings, rows):
        unknown = f"; nothing known of {', '.join(cover.unknown)}" if cover.unknown else ""
        if cover.undecided:
            unknown += f"; no verifier decides {', '.join(cover.undecided)} yet"
        lines.append(
            f"{cover.domain}: {cover.prompts:,} prompts, {cover.expected:,} rows expected of {cover.quota:,}: "
            + (f"SHORT of {cover.short:,}" if cover.short else "enough")
            + unknown
        )
    return lines


def predicted_lines(found: dict[str, Any]) -> list[str]:
    """Return a prediction as lines of text."""
    lines = [f"pilot: {found['pilot']} of {found['problems']} problems, {found['sampled_now']} traces sampled now"]
    tokens = found["tokens_by_use"]
    whole = sum(tokens.values()) or 1
    shares = ", ".join(f"{use} {count / whole:.0%}" for use, count in sorted(tokens.items(), key=lambda pair: -pair[1]))
    lines.append(f"tokens went to: {shares}")
    for name, value in found["predicted"].items():
        places = 0 if value["value"] >= 100 else 2
        shown, low, high = (f"{value[key]:,.{places}f}" for key in ("value", "low", "high"))
        lines.append(f"{name}: {shown} ({low} to {high})")
    return lines
