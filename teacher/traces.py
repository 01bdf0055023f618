"""The stage `traces`: ask the teacher for what the pool lacks."""

from __future__ import annotations

import os
from contextlib import ExitStack

from pipeline.engine import Endpoint
from pipeline.errors import UserError
from pipeline.manifest import Counts
from pipeline.records import content_hash
from pipeline.stages import Job, Outcome
from teacher.problems import load_problems
from teacher.sampling import Ask, held_ids, sample, wanted_ids
from teacher.serve import Engine, at_revision, serving
from teacher.settings import SamplingSettings, TeacherSettings


def run(job: Job) -> Outcome:
    """Sample the missing traces into traces/; a pool only grows, whatever the recipe has become."""
    teacher, sampling = job.recipe[TeacherSettings], job.recipe[SamplingSettings]
    problems = list(load_problems(job.folder("problems")).values())
    revision = teacher.identity
    wanted = wanted_ids(problems, teacher.model, revision, sampling)
    with ExitStack() as stack:
        engine: Engine | None = None
        endpoints = remote_endpoints(teacher)
        if not endpoints and not wanted.keys() <= held_ids(job.out):
            engine = stack.enter_context(
                serving(teacher.model, at_revision(teacher.engine, teacher.revision), job.run, "teacher")
            )
            endpoints = engine.endpoints
        tally = sample(
            [Ask(problems, job.out, sampling)],
            model=teacher.model,
            revision=revision,
            endpoints=endpoints,
            seed=job.recipe.seed,
            what="traces",
            engine=engine,
        )
    ids = sorted(held_ids(job.out))
    return Outcome(
        # The pool may hold more than this recipe asks for: traces of earlier settings.
        Counts(len(wanted), len(wanted)),
        {"pool": len(ids), "sampled_now": tally.finished, "retries": tally.retries},
        output_hash=content_hash(ids),
    )


def remote_endpoints(teacher: TeacherSettings) -> list[Endpoint]:
    """Return the recipe's endpoints with the key from the environment; [] where Retort serves itself.

    Raises:
        UserError: the environment variable for the key is named but not set.
    """
    key = ""
    if teacher.api_key_env:
        key = os.environ.get(teacher.api_key_env, "")
        if not key:
            raise UserError(
                f"teacher.api_key_env names the environment variable {teacher.api_key_env}, which is not set",
                f"export {teacher.api_key_env}=...",
                "remove teacher.api_key_env where the engine asks for no key",
            )
    name = teacher.served_name or teacher.model
    return [Endpoint(url.rstrip("/"), name, key, teacher.api_key_env) for url in teacher.endpoints]
