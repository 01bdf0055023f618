"""The stage `eval`: base, student and teacher answer the benchmarks and are scored.

eval/ is a pool: samples are added under eval/<role>/<benchmark>/ and none is discarded. Scores are
read off the samples that the current settings ask for; a new student has a new revision, and with it
new samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks import benchmark, draw
from eval.scoring import Sample, Score, paired_difference, question_means, score
from eval.settings import BenchmarkSettings, EvalSettings
from eval.tables import difference_line, score_table
from filtering.settings import VerifySettings
from pipeline.errors import UserError
from pipeline.files import write_json, write_whole
from pipeline.manifest import Counts, read_manifest
from pipeline.parts import read_rows
from pipeline.progress import say
from pipeline.records import Problem, Trace, Verdict, content_hash
from pipeline.stages import Job, Outcome, folder_hash
from teacher.settings import EngineSettings, SamplingSettings


@dataclass(frozen=True)
class Model:
    """A model to benchmark: what it is called in identities, what is served, and in which role."""

    role: str
    name: str
    revision: str
    served: str
    engine: EngineSettings


@dataclass(frozen=True)
class Task:
    """One benchmark as one model is put to it."""

    settings: BenchmarkSettings
    problems: list[Problem]
    pool: Path
    sampling: SamplingSettings


def run(job: Job) -> Outcome:
    """Sample what is missing, grade, score; write scores.json and comparison.json, print the table.

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
    scores: list[Score] = []
    means: dict[tuple[str, str], dict[str, float]] = {}
    asked = decided = missing = 0
    for role in settings.models:
        model = resolve(role, job)
        tasks = [
            Task(
                chosen,
                questions[chosen.name],
                job.out / role / chosen.name,
                settings.sampling.model_copy(update={"samples": chosen.k}),
            )
            for chosen in settings.benchmarks
        ]
        _sample(job, model, tasks)
        for task in tasks:
            samples, lost = _grade(job, model, task)
            scores.append(
                score(
                    samples,
                    [problem.id for problem in task.problems],
                    model=model.name,
                    role=role,
                    task=task.settings.name,
                    domain=benchmark(task.settings.name).DOMAIN,
                    k=task.settings.k,
                )
            )
            means[role, task.settings.name] = question_means(samples)
            asked += len(samples) + lost
            missing += lost
            decided += sum(sample.right is not None for sample in samples)
    rows = [row.to_dict() for row in scores]
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
    print(score_table(rows))
    for line in comparison:
        print(difference_line(line, alone=len(comparison) == 1))
    dropped = {"undecided": asked - decided - missing, "not_sampled": missing}
    return Outcome(
        Counts(asked, decided, {reason: count for reason, count in dropped.items() if count}),
        {"questions": {name: content_hash([problem.id for problem in found]) for name, found in questions.items()}},
        output_hash=content_hash(rows),
    )


def resolve(role: str, job: Job) -> Model:
    """Return the model of a role.

    The student is called "student" in its samples' identities, never by its path (a run folder that
    moves keeps its pool), and told apart by what its training left.

    Raises:
        UserError: the student is not there.
    """
    from students.settings import TrainSettings
    from teacher.serve import at_revision
    from teacher.settings import TeacherSettings

    engine = job.recipe[EvalSettings].engine
    if role == "teacher":
        teacher = job.recipe[TeacherSettings]
        # Its own way of being served, but with room for what the benchmark lets it say.
        engine = teacher.engine.model_copy(update={"max_model_len": engine.max_model_len})
        return Model(role, teacher.model, teacher.revision, teacher.model, at_revision(engine, teacher.revision))
    if role == "base":
        train = job.recipe[TrainSettings]
        if Path(train.base).is_dir():  # A folder's name says nothing of what is in it.
            return Model(role, train.base, folder_hash([Path(train.base)])[:12], train.base, engine)
        return Model(role, train.base, train.revision or "", train.base, at_revision(engine, train.revision or ""))
    folder = job.folder("student")
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"no student in {folder}", "run 'retort train' first", "leave 'student' out of eval.models")
    return Model(role, "student", manifest.output_hash[:12], str(folder), engine)


def _sample(job: Job, model: Model, tasks: list[Task]) -> None:
    """Fill the pools of one model under one engine; start none where nothing is missing."""
    from teacher.sampling import held_ids, sample, wanted_ids
    from teacher.serve import serving
    from teacher.settings import TeacherSettings
    from teacher.traces import remote_endpoints

    def whole(task: Task) -> bool:
        return wanted_ids(task.problems, model.name, model.revision, task.sampling).keys() <= held_ids(task.pool)

    with ExitStack() as stack:
        engine = None
        endpoints = remote_endpoints(job.recipe[TeacherSettings]) if model.role == "teacher" else []
        if not endpoints and not all(whole(task) for task in tasks):
            engine = stack.enter_context(serving(model.served, model.engine, job.run, f"eval-{model.role}"))
            endpoints = [engine.endpoint]
        for task in tasks:
            sample(
                task.problems,
                task.pool,
                model=model.name,
                revision=model.revision,
                settings=task.sampling,
                endpoints=endpoints,
                seed=job.recipe.seed,
                what=f"{model.role} on {task.settings.name}",
                engine=engine,
            )


def _grade(job: Job, model: Model, task: Task) -> tuple[list[Sample], int]:
    """Grade a pool, leave grades.jsonl in it; return the samples and how many are missing."""
    from filtering.verify import grade
    from teacher.sampling import wanted_ids

    verify = job.recipe[VerifySettings]
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
    for verdict in grade(pairs(), workers=verify.workers, timeout_s=verify.timeout_s):
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
