"""The stage `problems`: rows of a source become problems, bad rows are set aside with file, row and reason."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.manifest import Counts
from pipeline.parts import read_rows, write_parts
from pipeline.progress import say
from pipeline.records import Message, Problem
from pipeline.stages import Job, Outcome
from teacher.families import as_problem, exercises
from teacher.hub import hub_rows
from teacher.settings import ProblemsSettings

BadRow = dict[str, Any]


def run(job: Job) -> Outcome:
    """Read the source, leave problems/ and, where rows were bad, problems/bad_rows.jsonl."""
    settings = job.recipe[ProblemsSettings]
    problems, bad, entered = read_problems(settings, job.recipe.seed)
    dropped = Counter(row["reason"] for row in bad)
    unique = {problem.id: (problem, effort) for problem, effort in reversed(problems)}
    dropped["duplicate"] += len(problems) - len(unique)
    chosen = list(reversed(unique.values()))
    if settings.order == "shuffled":
        random.Random(job.recipe.seed).shuffle(chosen)
    elif settings.order == "shortest":
        chosen.sort(key=lambda pair: (pair[1], pair[0].id))
    if settings.limit is not None and len(chosen) > settings.limit:
        dropped["over_limit"] = len(chosen) - settings.limit
        chosen = chosen[: settings.limit]
    if not chosen:
        raise UserError(
            f"the source {settings.path or settings.source} gave no problem out of {entered} rows"
            + (f" (first: {bad[0]['where']}: {bad[0]['reason']})" if bad else ""),
            "set problems.question and problems.reference to its column names",
            "set problems.path to another file",
        )
    if bad:
        write_whole(job.out / "bad_rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in bad))
        say(
            f"problems: {len(bad)} bad rows set aside in {job.folder('problems')}/bad_rows.jsonl "
            f"(first: {bad[0]['where']}: {bad[0]['reason']})"
        )
    write_parts(job.out, (problem.to_dict() for problem, _ in chosen), Problem.SCHEMA)
    return Outcome(Counts(entered, len(chosen), {reason: count for reason, count in dropped.items() if count}))


def load_problems(folder: Path) -> dict[str, Problem]:
    """Return the problems of a run by id, in the stage's order."""
    return {row["id"]: Problem.from_dict(row) for row in read_rows(folder)}


def read_problems(settings: ProblemsSettings, seed: int = 0) -> tuple[list[tuple[Problem, int]], list[BadRow], int]:
    """Return (problems with the length of their reference solution, bad rows, rows read).

    Raises:
        UserError: the file or the Hub dataset cannot be read at all.
    """
    problems: list[tuple[Problem, int]] = []
    bad: list[BadRow] = []
    entered = 0
    if settings.generate:
        drawn = [problem for name, count in settings.generate.items() for problem in generated(name, count, seed)]
        return [(problem, len(problem.messages[-1]["content"])) for problem in drawn], bad, len(drawn)
    if settings.path:
        rows = _jsonl(Path(settings.path))
    else:
        way = "set problems.path to a local JSONL file"
        rows = hub_rows(settings.source, settings.config, settings.split, way)
    for where, row in rows:
        entered += 1
        try:
            problems.append(_problem(row, settings))
        except ValueError as error:
            bad.append({"where": where, "reason": str(error), "row": row if isinstance(row, str) else None})
    return problems, bad, entered


def generated(name: str, count: int, seed: int) -> list[Problem]:
    """Return the first problems of a family by the seed, none of them held out.

    Raises:
        UserError: the family has not so many.
    """
    drawn = [as_problem(name, exercise) for exercise in islice(exercises(name, seed, held_out=False), count)]
    if len(drawn) < count:
        raise UserError(
            f"problems.generate asks for {count} of the family '{name}', which has {len(drawn)}",
            f"set problems.generate.{name} = {len(drawn)}",
        )
    return drawn


def _problem(row: Any, settings: ProblemsSettings) -> tuple[Problem, int]:
    if not isinstance(row, dict):
        raise ValueError("broken JSON" if isinstance(row, str) else "not a JSON object")
    question = row.get(settings.question)
    if isinstance(question, str) and question.strip():
        messages: list[Message] = [{"role": "user", "content": question.strip()}]
    elif isinstance(question, list) and _is_messages(question):
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in question]
    else:
        raise ValueError(f"no text or messages in column '{settings.question}'")
    solution = row.get(settings.reference)
    if solution is None or not str(solution).strip():
        raise ValueError(f"no reference in column '{settings.reference}'")
    reference = str(solution)
    try:
        f"{question}{reference}".encode()
    except UnicodeEncodeError:
        raise ValueError("broken Unicode (a lone surrogate)") from None
    if settings.reference_after:
        _, mark, reference = reference.rpartition(settings.reference_after)
        if not mark:
            raise ValueError(f"no '{settings.reference_after}' in column '{settings.reference}'")
    problem = Problem.of(
        messages,
        domain=settings.domain,
        source=settings.source,
        license=settings.license,
        reference=reference.strip(),
        verifier=settings.verifier,
    )
    return problem, len(str(solution))


def _is_messages(value: list[Any]) -> bool:
    return (
        bool(value)
        and all(
            isinstance(turn, dict)
            and turn.get("role") in ("system", "user", "assistant")
            and isinstance(turn.get("content"), str)
            for turn in value
        )
        and value[-1]["role"] == "user"
    )


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield f"{path}:{number}", json.loads(line)
                except (ValueError, RecursionError):
                    yield f"{path}:{number}", line[:200].decode("utf-8", "replace")
    except FileNotFoundError:
        raise UserError(
            f"no file at problems.path = {path}",
            "correct the path (it is read from the current folder)",
            "set problems.path='' to read problems.source from the Hub",
        ) from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"cannot read problems.path = {path} ({error.strerror})", "give a readable JSONL file"
        ) from error
