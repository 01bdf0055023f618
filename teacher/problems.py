"""The stage `problems`: rows of sources become problems, bad rows are set aside with file, row and reason."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from filtering.references import reference_trouble
from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.manifest import Counts
from pipeline.parts import read_rows, write_parts
from pipeline.progress import say
from pipeline.records import Message, Problem, Trace
from pipeline.stages import Job, Outcome
from teacher.choosing import Chosen
from teacher.drafts import drafted
from teacher.families import as_problem, exercises
from teacher.imports import IMPORTED, finished_trace, parted
from teacher.models import RUN
from teacher.source_settings import ProblemsSettings, SourceSettings
from teacher.sources import SHOWN, Unread, column, rows_of

BadRow = dict[str, Any]
DOMAINS = ("math", "code", "stem", "logic", "general")


@dataclass
class Read:
    """What reading sources came to."""

    problems: list[tuple[Problem, int]] = field(default_factory=list)
    """Each with the length of its reference solution."""
    bad: list[BadRow] = field(default_factory=list)
    entered: int = 0
    duplicates: int = 0
    over_limit: int = 0
    """Of the rows that were read: where the order is that of the source, nothing is read beyond its limit."""
    imported: dict[str, Trace] = field(default_factory=dict)
    """Finished traces that came with the rows, by problem id."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per source: rows read, problems taken."""


def run(job: Job) -> Outcome:
    """Read the sources, leave problems/ and, where rows were bad, problems/bad_rows.jsonl."""
    settings = job.recipe[ProblemsSettings]
    read = read_problems(settings, job.recipe.seed)
    dropped = Counter(row["reason"] for row in read.bad)
    dropped += Counter(over_limit=read.over_limit, duplicate=read.duplicates)
    if read.bad:
        write_whole(job.out / "bad_rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in read.bad))
        say(
            f"problems: {len(read.bad)} bad rows set aside in {job.folder('problems')}/bad_rows.jsonl "
            f"(first: {read.bad[0]['where']}: {read.bad[0]['reason']})"
        )
    problems = [problem for problem, _ in read.problems]
    troubles = Counter(trouble for problem in problems if (trouble := reference_trouble(problem)))
    for trouble, count in troubles.most_common():
        first = next(problem for problem in problems if reference_trouble(problem) == trouble)
        shown = " ".join(first.messages[-1]["content"].split())[:60]
        say(f"problems: {count} of {len(problems)}: {trouble} (first: '{shown}', reference '{first.reference}')"[:300])
    write_parts(job.out, (problem.to_dict() for problem in problems), Problem.SCHEMA)
    imported = [read.imported[problem.id] for problem in problems if problem.id in read.imported]
    if imported:
        write_parts(job.out / IMPORTED, (trace.to_dict() for trace in imported), Trace.SCHEMA)
    facts = {
        "sources": read.sources,
        **({"imported": len(imported)} if imported else {}),
        **({"references": dict(troubles)} if troubles else {}),
    }
    return Outcome(
        Counts(read.entered, len(problems), {reason: count for reason, count in dropped.items() if count}), facts
    )


def load_problems(folder: Path) -> dict[str, Problem]:
    """Return the problems of a run by id, in the stage's order."""
    return {row["id"]: Problem.from_dict(row) for row in read_rows(folder)}


def read_problems(settings: ProblemsSettings, seed: int = 0) -> Read:
    """Return the problems of all sources of a recipe.

    Raises:
        UserError: a source cannot be read at all, or yields no problem.
    """
    read = Read()
    whole = Chosen(settings, seed)
    for name, count in settings.generate.items():
        for problem in generated(name, count, seed):
            read.entered += 1
            whole.give(problem, len(problem.messages[-1]["content"]))
    for source in () if settings.generate else settings.sources or (settings,):
        for entry in _read(read, source, seed):
            whole.give(entry.problem, entry.length, entry.finished)
    read.duplicates += whole.duplicates
    read.over_limit += whole.over
    for entry in whole:
        read.problems.append((entry.problem, entry.length))
        if entry.finished is not None:
            read.imported[entry.problem.id] = entry.finished
    return read


def _read(read: Read, source: SourceSettings, seed: int) -> Chosen:
    if source.verified is False:
        say(f"problems: the columns named for {source.name} were never tried on the source itself (verified = false)")
    entered, first_bad, chosen = 0, len(read.bad), Chosen(source, seed)
    if source.source.startswith(RUN) and not source.path:
        for problem in drafted(source.source):
            entered += 1
            chosen.give(problem, len(problem.draft or ""))
    else:
        for where, row in rows_of(source, seed):
            entered += 1
            try:
                chosen.give(*_problem(row, source))
            except ValueError as error:
                read.bad.append(
                    {"where": where, "reason": str(error), "row": row.text if isinstance(row, Unread) else shown(row)}
                )
            if chosen.full:
                break
    if not len(chosen):
        bad = read.bad[first_bad:]
        if not entered:
            if source.only:
                raise UserError(f"no row of the source {source.name} is as problems.only wants it", "correct that")
            rows = "accepted traces" if source.source.startswith(RUN) and not source.path else "rows"
            raise UserError(f"the source {source.name} has no {rows}", "give one that has")
        raise UserError(
            f"the source {source.name} gave no problem out of {entered} rows"
            + (f" (first: {bad[0]['where']}: {bad[0]['reason']})" if bad else ""),
            "set problems.question and problems.reference to its column names",
            "set problems.path to another file",
        )
    read.sources[source.name] = {"rows": entered, "taken": len(chosen)}
    read.entered += entered
    read.duplicates += chosen.duplicates
    read.over_limit += chosen.over
    return chosen


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


def _problem(row: dict[str, Any] | Unread, settings: SourceSettings) -> tuple[Problem, int, Trace | None]:
    """The row's problem, the length of its reference solution, and the finished trace that it brings along."""
    if isinstance(row, Unread):
        raise ValueError(row.why)
    question, said = parted(column(row, settings.question), row, settings)
    if isinstance(question, str) and question.strip():
        messages: list[Message] = [{"role": "user", "content": question.strip()}]
    elif isinstance(question, list) and _is_messages(question):
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in question]
    else:
        raise ValueError(f"no text or messages in column '{settings.question}'")
    reference, length = _reference(row, settings)
    try:
        for text in (*(turn["content"] for turn in messages), reference or ""):
            text.encode()
    except UnicodeEncodeError:
        raise ValueError("broken Unicode (a lone surrogate)") from None
    domain = column(row, settings.domain_column) if settings.domain_column else settings.domain
    if domain not in DOMAINS:
        raise ValueError(f"no domain in column '{settings.domain_column}': {domain!r} is none of {', '.join(DOMAINS)}")
    license = column(row, settings.license_column) if settings.license_column else settings.license
    if not license:
        raise ValueError(f"no licence in column '{settings.license_column}'")
    problem = Problem.of(
        messages,
        domain=domain,
        source=settings.origin,
        license=str(license),
        reference=reference,
        verifier=settings.verifier,
    )
    return problem, length, None if said is None else finished_trace(problem, said)


def _reference(row: dict[str, Any], settings: SourceSettings) -> tuple[str | None, int]:
    """The row's reference, and the length of the solution that it stands in."""
    if not settings.reference:
        return None, 0
    solution = column(row, settings.reference)
    if isinstance(solution, list | dict):
        solution = json.dumps(solution, ensure_ascii=False)
    if solution is None or not str(solution).strip():
        raise ValueError(f"no reference in column '{settings.reference}'")
    reference = str(solution)
    if settings.reference_after:
        _, mark, reference = reference.rpartition(settings.reference_after)
        if not mark:
            raise ValueError(f"no '{settings.reference_after}' in column '{settings.reference}'")
    return reference.strip(), len(str(solution))


def shown(row: dict[str, Any]) -> str:
    """Return how a row begins, for whoever has to put it right."""
    return json.dumps(row, ensure_ascii=False, default=str)[:SHOWN]


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
