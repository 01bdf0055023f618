"""The stage `eval`: base, student, arms and teacher answer the benchmarks and are scored.

Models of one shape are served by one engine, one after another. eval/ is a pool: samples are added
under eval/<role>/<benchmark>/ and none is discarded. Scores are read off the samples that the current
settings ask for; a new student has a new revision, and with it new samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.arms import Answered, compare
from eval.benchmarks import benchmark, draw
from eval.models import Model, Task, resolve_all, sample_group, sharing
from eval.scoring import Sample, Score, paired_difference, score
from eval.settings import EvalSettings
from eval.tables import arms_table, difference_line, score_table
from filtering import sandbox
from filtering.deferred import Settlement
from filtering.settings import VerifySettings
from filtering.verdicts import not_run
from pipeline.files import write_json, write_whole
from pipeline.manifest import Counts
from pipeline.parts import read_rows
from pipeline.progress import Progress, say
from pipeline.records import Problem, Trace, Verdict, content_hash
from pipeline.stages import Job, Outcome


def run(job: Job) -> Outcome:
    """Sample what is missing, grade, score; write scores.json and comparison.json, print the table.

    Where arms were trained, arms.json holds what their comparison comes to (see `eval/arms.py`).

    Raises:
        UserError: questions cannot be read, a model is not there, an engine does not start.
    """
    settings = job.recipe[EvalSettings]
    questions = {
        chosen.name: draw(
            benchmark(chosen.name).problems(Path(chosen.path) if chosen.path else None), chosen.limit, job.recipe.seed
        )
        for chosen in settings.benchmarks
    }
    models = [model for role in settings.models for model in resolve_all(role, job)]
    tasks = {
        model.role: [
            Task(
                chosen,
                questions[chosen.name],
                job.out / model.role / chosen.name,
                settings.sampling.model_copy(update={"samples": chosen.k}),
            )
            for chosen in settings.benchmarks
        ]
        for model in models
    }
    for group in sharing(models):
        sample_group(job, group, tasks)
    scores: list[Score] = []
    answered: list[Answered] = []
    asked = decided = missing = stuck = 0
    work = [(model, task) for model in models for task in tasks[model.role]]
    verify = job.recipe[VerifySettings]
    expected = sum(len(task.problems) * task.settings.k for _, task in work)
    with Settlement(verify.workers, verify.timeout_s) as settlement, Progress("eval: graded", expected) as progress:
        for model, task in work:
            samples, lost = _grade(settlement, progress, model, task)
            row = score(
                samples,
                [problem.id for problem in task.problems],
                model=model.name,
                role=model.role,
                arm=model.arm,
                seed=model.seed,
                task=task.settings.name,
                domain=benchmark(task.settings.name).DOMAIN,
                k=task.settings.k,
            )
            scores.append(row)
            answered.append(Answered.of(row, samples))
            asked += len(samples) + lost
            missing += lost
            decided += sum(sample.right is not None for sample in samples)
            stuck += sum(not_run(sample.state, sample.decided_by) for sample in samples)
    rows = [row.to_dict() for row in scores]
    means = {(found.role, found.task): found.means for found in answered}
    comparison = [
        {
            "task": chosen.name,
            "model": "student",
            "against": "base",
            **paired_difference(means["student", chosen.name], means["base", chosen.name]).to_dict(),
        }
        for chosen in settings.benchmarks
        if {"student", "base"} <= set(settings.models)
    ]
    write_json(job.out / "scores.json", rows)
    write_json(job.out / "comparison.json", comparison)
    if "arms" in settings.models and len({model.role for model in models} - {"base", "student", "teacher"}):
        compared = compare(answered)
        write_json(job.out / "arms.json", compared)
        print(arms_table(compared))
    else:
        (job.out / "arms.json").unlink(missing_ok=True)
        print(score_table(rows))
        for line in comparison:
            print(difference_line(line, alone=len(comparison) == 1))
    asked_of = {name: content_hash([problem.id for problem in found]) for name, found in questions.items()}
    dropped = {"undecided": asked - decided - missing, "not_sampled": missing}
    return Outcome(
        Counts(asked, decided, {reason: count for reason, count in dropped.items() if count}),
        {"questions": asked_of, **sandbox.lacked(stuck)},
        output_hash=content_hash(rows),
    )


def _grade(settlement: Settlement, progress: Progress, model: Model, task: Task) -> tuple[list[Sample], int]:
    """Grade a pool, leave grades.jsonl in it; return the samples and how many are missing."""
    from filtering.verify import grade_by
    from teacher.sampling import wanted_ids

    problems = {problem.id: problem for problem in task.problems}
    wanted = wanted_ids(task.problems, model.name, model.revision, task.sampling)
    # What grading leaves of a trace: its text is not held.
    waiting: dict[str, Trace] = {}

    def pairs() -> Iterator[tuple[Problem, Trace]]:
        seen: set[str] = set()
        for row in read_rows(task.pool):
            if row["id"] in wanted and row["id"] not in seen:
                seen.add(row["id"])
                trace = Trace.from_dict(row)
                waiting[trace.id] = _without_text(row)
                yield problems[trace.problem_id], trace

    graded: list[tuple[Trace, Verdict, Sample]] = []
    for verdict in grade_by(settlement, pairs()):
        progress.advance()
        trace = waiting.pop(verdict.trace_id)
        graded.append((trace, verdict, Sample.of(trace, verdict)))
    graded.sort(key=lambda item: (item[0].problem_id, item[0].sample))
    lines = (_grade_row(problems[item[0].problem_id], *item) for item in graded)
    write_whole(task.pool / "grades.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    other = sum(_other_budget(trace, task.sampling.max_tokens) for trace, _, _ in graded)
    if other:
        say(
            f"eval: {other} samples of {model.role} on {task.settings.name} were taken under another max_tokens than "
            f"{task.sampling.max_tokens} and would differ under it; they are scored as they are: "
            f"move {task.pool} away to sample them anew"
        )
    return [sample for _, _, sample in graded], len(wanted) - len(graded)


def _without_text(row: dict[str, Any]) -> Trace:
    """Return the trace with its thought and answer cut to a mark of their presence."""
    return Trace.from_dict(
        {**row, "text": "", "thought": "x" if row["thought"] else None, "answer": "x" if row["answer"] else None}
    )


def _other_budget(trace: Trace, max_tokens: int) -> bool:
    """Whether this sample would have come out otherwise under the budget of now."""
    if trace.finish_reason == "length":
        return trace.max_tokens != max_tokens
    return trace.completion_tokens > max_tokens


def _grade_row(problem: Problem, trace: Trace, verdict: Verdict, sample: Sample) -> dict[str, Any]:
    counted = {None: "no try", 1.0: "right", 0.0: "wrong"}[sample.right]
    return {
        "trace_id": trace.id,
        "problem_id": trace.problem_id,
        "sample": trace.sample,
        "counted": counted,
        "no_answer": sample.no_answer,
        "state": str(verdict.state),
        "decided_by": verdict.decided_by,
        "why": verdict.why,
        "extracted": verdict.extracted,
        "reference": problem.reference,
        "finish_reason": trace.finish_reason,
        "completion_tokens": trace.completion_tokens,
    }
