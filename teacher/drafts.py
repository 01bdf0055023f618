"""Accepted traces of an earlier run as the drafts of another: problems that ask for a trace to be written anew.

`source = "run:NAME"` gives each accepted trace of the run NAME as the problem that it answers, with the trace as its
draft, which `sampling.prompt` names as {draft}. DeepSeek-R1's cold start was made so: what was sampled, correct and
readable was rewritten into the language of the question, with a summary at its end (arXiv 2501.12948v2, 2.3.1). What
comes back goes the whole road again: verified against the same reference, filtered by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.manifest import Manifest, read_manifest
from pipeline.parts import read_rows
from pipeline.records import Problem, Trace
from teacher.models import RUN, RUNS

PLACE = "{draft}"
"""Where a prompt has the draft put."""


def drafted(source: str) -> Iterator[Problem]:
    """Yield the problem with its draft for each accepted trace of a run, in the order of the traces' ids.

    Args:
        source: `run:NAME`.

    Raises:
        UserError: there is no such run, or it is not filtered.
    """
    _accepted(source)
    run = _folder(source)
    problems = {row["id"]: Problem.from_dict(row) for row in read_rows(run / "problems")}
    traces = (Trace.from_dict(row) for row in read_rows(run / "accepted"))
    for trace in sorted(traces, key=lambda trace: trace.id):
        problem = problems[trace.problem_id]
        yield Problem.of(
            problem.messages,
            domain=problem.domain,
            source=problem.source,
            license=problem.license,
            reference=problem.reference,
            verifier=problem.verifier,
            draft=f"{trace.thought or ''}\n\n{trace.answer or ''}".strip(),
        )


def drafts_revision(source: str) -> str:
    """Return what tells the accepted traces of a run from others that it may leave: 12 hex digits.

    Raises:
        UserError: see `drafted`.
    """
    return _accepted(source).output_hash[:12]


def check_prompt(prompt: str, problems: Sequence[Problem]) -> None:
    """Check that drafts are asked for where there are some, and there alone.

    Raises:
        UserError: the prompt has a place for a draft and a problem has none, or the other way round.
    """
    without = [problem for problem in problems if problem.draft is None]
    if PLACE in prompt and without:
        raise UserError(
            f"sampling.prompt names {PLACE}, and {len(without)} of {len(problems)} problems have none",
            "set problems.source = 'run:NAME' to rewrite the accepted traces of the run NAME",
            f"take {PLACE} out of the prompt",
        )
    if PLACE not in prompt and len(without) < len(problems):
        raise UserError(
            f"{len(problems) - len(without)} of {len(problems)} problems have a draft, and sampling.prompt has no place"
            " for it",
            f"put {PLACE} into sampling.prompt, as recipes/cold-start-rewrite.toml does",
        )


def _folder(source: str) -> Path:
    return RUNS / source.removeprefix(RUN)


def _accepted(source: str) -> Manifest:
    folder = _folder(source) / "accepted"
    manifest = read_manifest(folder)
    if manifest is None or not manifest.complete:
        raise UserError(
            f"no accepted traces in {folder}",
            f"run 'retort run recipes/{source.removeprefix(RUN)}.toml --until filter' first",
            "name another source",
        )
    return manifest
