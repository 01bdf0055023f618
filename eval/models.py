"""The models that are benchmarked: which they are, which of them can share an engine, and asking them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from eval.settings import BenchmarkSettings, EvalSettings
from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import say
from pipeline.records import Problem
from pipeline.stages import Job
from teacher.settings import AskSettings, EngineSettings


@dataclass(frozen=True)
class Model:
    """A model to benchmark: what it is called in identities, what is served, and in which role.

    `arm` and `seed` say what it is one of: `answers_only-2` is the arm `answers_only` under seed 2.
    """

    role: str
    name: str
    revision: str
    served: str
    engine: EngineSettings
    arm: str
    seed: int | None = None


@dataclass(frozen=True)
class Task:
    """One benchmark as one model is put to it."""

    settings: BenchmarkSettings
    problems: list[Problem]
    pool: Path
    sampling: AskSettings


def resolve_all(role: str, job: Job) -> list[Model]:
    """Return the models of a word of `eval.models`: one, or for `arms` each that the stage `arms` trained.

    Raises:
        UserError: a model is not there, or no arms were trained.
    """
    if role != "arms":
        return [resolve(role, job)]
    folder = job.folder("arms")
    manifest = read_manifest(folder)
    trained = manifest.facts.get("trained", {}) if manifest else {}
    if not trained:
        raise UserError(
            f"no arms in {folder}",
            "name some in arms.arms ('student', 'answers_only', 'unverified', 'verified')",
            "leave 'arms' out of eval.models",
        )
    engine = job.recipe[EvalSettings].engine
    return [
        Model(name, fact["arm"], fact["hash"][:12], str(folder / name), engine, fact["arm"], fact["seed"])
        for name, fact in trained.items()
    ]


def resolve(role: str, job: Job) -> Model:
    """Return the model of a role: base, student or teacher.

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
        engine = at_revision(engine, teacher.revision)
        return Model(role, teacher.model, teacher.identity, teacher.model, engine, role)
    if role == "base":
        train = job.recipe[TrainSettings]
        engine = at_revision(engine, train.revision or "")
        return Model(role, train.base, train.identity, train.base, engine, role)
    folder = job.folder("student")
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"no student in {folder}", "run 'retort train' first", "leave 'student' out of eval.models")
    return Model(role, "student", manifest.output_hash[:12], str(folder), engine, role, job.recipe.seed)


def sharing(models: Sequence[Model]) -> list[list[Model]]:
    """Return the models in groups that one engine can serve in turn, in the order of their first."""
    from teacher.swap import shape_of

    groups: dict[object, list[Model]] = {}
    for model in models:
        shape = None if model.role == "teacher" else shape_of(model.served)
        groups.setdefault(model.role if shape is None else (shape, model.engine.model_dump_json()), []).append(model)
    return list(groups.values())


def sample_group(job: Job, group: Sequence[Model], tasks: Mapping[str, Sequence[Task]]) -> None:
    """Fill the pools of models that share an engine; start none where nothing is missing.

    Weights are swapped between two models; where that fails the next one gets an engine of its own.

    Raises:
        UserError: the engine does not start, is gone, or gave up samples.
    """
    from teacher.endpoints import remote_endpoints
    from teacher.sampling import Ask, held_ids, sample, wanted_ids
    from teacher.serve import serving
    from teacher.settings import TeacherSettings
    from teacher.swap import swap_weights

    def whole(model: Model, task: Task) -> bool:
        return wanted_ids(task.problems, model.name, model.revision, task.sampling).keys() <= held_ids(task.pool)

    with ExitStack() as stack:
        engine = None
        for model in group:
            endpoints = remote_endpoints(job.recipe[TeacherSettings]) if model.role == "teacher" else []
            if not endpoints and not all(whole(model, task) for task in tasks[model.role]):
                if engine is not None and (trouble := swap_weights(engine, model.served)):
                    say(f"eval: {model.role} gets an engine of its own ({trouble})")
                    stack.close()
                    engine = None
                if engine is None:
                    name = f"eval-{model.role}"
                    engine = stack.enter_context(
                        serving(model.served, model.engine, job.run, name, swaps=len(group) > 1)
                    )
                endpoints = engine.endpoints
            # All benchmarks in one stream: between two of them the engine would idle on the longest answer.
            sample(
                [Ask(task.problems, task.pool, task.sampling) for task in tasks[model.role]],
                model=model.name,
                revision=model.revision,
                endpoints=endpoints,
                seed=job.recipe.seed,
                what=f"{model.role} on {_benchmarks(tasks[model.role])}",
                engine=engine,
            )


def _benchmarks(tasks: Sequence[Task]) -> str:
    return tasks[0].settings.name if len(tasks) == 1 else f"{len(tasks)} benchmarks"
