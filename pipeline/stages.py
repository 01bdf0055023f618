"""Stages: what each reads and leaves, when its result is fresh, and how it is run.

A stage's `run` function takes a `Job` and returns an `Outcome`. Most stages build their folder aside
and swap it in when it is whole, the old result being kept beside it; pools (`traces`, `eval`) are
added to in place and lose nothing.
"""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import disk_errors, write_json
from pipeline.manifest import Counts, Manifest, folder_hash, peak_rss_mb, read_manifest, settings_hash, versions
from pipeline.memory import TreePeak
from pipeline.parts import part_paths
from pipeline.progress import say
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the folders it owns (the first holds its manifest), what it reads.

    What is in `may_read` it reads where it is there: a run may end before it.
    `revisit` ("module:name") takes the facts of a whole result and says why it is worth doing again, or "".
    """

    name: str
    folders: tuple[str, ...]
    reads: tuple[str, ...]
    sections: tuple[str, ...]
    run: str
    pool: bool = False
    resumes: bool = False
    revisit: str = ""
    may_read: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The folder that holds the manifest."""
        return self.folders[0]


STAGES = {
    stage.name: stage
    for stage in (
        Stage("problems", ("problems",), (), ("problems",), "teacher.problems:run"),
        Stage(
            "traces",
            ("traces",),
            ("problems",),
            ("teacher", "sampling"),
            "teacher.traces:run",
            pool=True,
            revisit="teacher.traces:revisit",
        ),
        Stage(
            "verify",
            ("verdicts",),
            ("problems", "traces"),
            ("verify",),
            "filtering.verify:run",
            revisit="filtering.sandbox:revisit",
        ),
        Stage(
            "filter", ("accepted", "rejected"), ("problems", "traces", "verify"), ("filter",), "filtering.filter:run"
        ),
        Stage("dataset", ("dataset",), ("problems", "filter"), ("dataset",), "filtering.dataset:run"),
        Stage("train", ("student",), ("dataset",), ("train",), "students.train:run", resumes=True),
        Stage(
            "arms",
            ("arms",),
            ("problems", "traces", "verify", "dataset", "train"),
            ("arms", "train", "dataset"),
            "students.arms:run",
            resumes=True,
        ),
        Stage(
            "eval",
            ("eval",),
            ("train", "arms"),
            ("eval",),
            "eval.stage:run",
            pool=True,
            revisit="filtering.sandbox:revisit",
        ),
        Stage("report", ("report",), ("dataset",), (), "eval.report:run", may_read=("train", "eval")),
    )
}


@dataclass(frozen=True)
class Job:
    """What a stage's function is given: the recipe, the run, and the folder to write into."""

    recipe: Recipe
    run: Path
    out: Path
    stage: Stage
    fresh_inputs: dict[str, str] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        """Return a finished folder of the run to read from."""
        return self.run / name


@dataclass(frozen=True)
class Outcome:
    """What a stage's function returns: its counts, and facts worth keeping in the manifest.

    A pool gives its own `output_hash`; for the other stages it is computed from the files.
    """

    counts: Counts
    facts: dict[str, Any] = field(default_factory=dict)
    output_hash: str = ""


def stage_settings(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """Return the settings that change the stage's result, by section."""
    names = dict.fromkeys(stage.sections)
    for name in stage.sections:
        names.update(dict.fromkeys(recipe.sections[name].also()))
    return {"seed": recipe.seed, **{name: recipe.sections[name].result_settings() for name in names}}


def inputs_of(stage: Stage, run: Path) -> dict[str, str]:
    """Return the output hash of each stage that this one reads.

    Raises:
        UserError: one of them is not complete.
    """
    found = {}
    for name in stage.reads:
        manifest = read_manifest(run / STAGES[name].folder)
        if manifest is None or not manifest.complete:
            raise UserError(
                f"'{stage.name}' needs the stage '{name}', which is not complete in {run}",
                f"run 'retort {name}' first",
                "let 'retort run' do all that is missing",
            )
        if lost := _lost(STAGES[name], manifest, run):
            raise UserError(
                f"'{stage.name}' needs the stage '{name}', and {lost[0]} in {run}",
                "restore it from a copy",
                f"run 'retort {name} RECIPE --rebuild'"
                + (" (what is lost is sampled anew)" if STAGES[name].pool else ""),
            )
        found[name] = manifest.output_hash
    return found | {name: _result_of(name, run) for name in stage.may_read}


def _result_of(name: str, run: Path) -> str:
    """Return the output hash of a stage, "" where it has no whole result."""
    manifest = read_manifest(run / STAGES[name].folder)
    return manifest.output_hash if manifest and manifest.complete else ""


def reads_other(stage: Stage, manifest: Manifest, run: Path) -> list[str]:
    """Return the stages whose result is by now another than the one that a result was built from."""
    return [name for name in (*stage.reads, *stage.may_read) if _result_of(name, run) != manifest.inputs.get(name, "")]


def _parts(stage: Stage, run: Path, suffix: str = "") -> dict[str, int]:
    """The bytes of each part of a stage's folders."""
    paths = [(folder, path) for folder in stage.folders for path in part_paths(run / f"{folder}{suffix}")]
    return {f"{folder}/{path.name}": path.stat().st_size for folder, path in paths}


def _lost(stage: Stage, manifest: Manifest, run: Path) -> list[str]:
    """Which parts are not there as the manifest has them, in words."""
    now = _parts(stage, run)
    return [
        f"the part {name} {'has changed since' if name in now else 'is gone'}"
        for name, size in manifest.parts.items()
        if now.get(name) != size
    ]


def check_sources(stage: Stage, recipe: Recipe, run: Path) -> None:
    """Check that what a stage reads, near or far, was itself built as the recipe has it by now.

    A pool is left out: what it holds beyond the recipe does no harm.

    Raises:
        UserError: a stage before it is stale.
    """
    for name in (*stage.reads, *stage.may_read):
        before = STAGES[name]
        check_sources(before, recipe, run)
        manifest = read_manifest(run / before.folder)
        if manifest is not None and not before.pool and (changed := _other_settings(before, recipe, manifest)):
            raise UserError(
                f"'{stage.name}' needs the stage '{name}', which was built from other settings ({', '.join(changed)})",
                f"'retort run {recipe.path}' with the same settings rebuilds it and all that depends on it",
                f"'retort {name} {recipe.path} --rebuild' rebuilds that stage alone",
                "--run DIR starts another run",
            )


def _other_settings(stage: Stage, recipe: Recipe, manifest: Manifest) -> list[str]:
    now = stage_settings(stage, recipe)
    return [] if manifest.settings_hash == settings_hash(now) else _changed(manifest.settings, now) or ["settings"]


def differences(stage: Stage, recipe: Recipe, run: Path) -> list[str] | None:
    """Return what makes the stage's result stale: [] where it is fresh, None where there is none."""
    manifest = read_manifest(run / stage.folder)
    if manifest is None or not manifest.complete:
        return None
    found = _other_settings(stage, recipe, manifest)
    found += _lost(stage, manifest, run)
    found += [f"result of '{name}'" for name in reads_other(stage, manifest, run)]
    if stage.revisit and (why := _named(stage.revisit)(manifest.facts)):
        found.append(why)
    return found


def _named(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _changed(before: Any, now: Any, key: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in sorted({*before, *now}):
            found += _changed(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        return found
    if before == now:
        return []
    old, new = (json.dumps(value, ensure_ascii=False) for value in (before, now))
    if len(old) + len(new) > 100:
        return [key]
    return [f"{key}: {old} -> {new}"]


def run_stage(stage: Stage, recipe: Recipe, run: Path, rebuild: bool = False) -> bool:
    """Run one stage unless its result is fresh; return whether it ran.

    The caller holds the run's lock. A stale result is an error unless `rebuild` is set or the stage
    is a pool, which only ever grows.

    Raises:
        UserError: an input is missing, the result is stale, or the stage's own trouble.
    """
    inputs = inputs_of(stage, run)
    check_sources(stage, recipe, run)
    stale = differences(stage, recipe, run)
    if stale == []:
        say(f"{stage.name}: up to date")
        return False
    if stale and not rebuild and not stage.pool:
        raise UserError(
            f"{run / stage.folder} was built from other settings or inputs ({', '.join(stale)})",
            f"'retort run {recipe.path}' rebuilds it and all that depends on it, keeping the old result beside it",
            f"'retort {stage.name} {recipe.path} --rebuild' rebuilds this stage alone",
            "--run DIR starts another run",
        )
    started = time.monotonic()
    function: Callable[[Job], Outcome] = _named(stage.run)
    settings = stage_settings(stage, recipe)
    with disk_errors(run / stage.folder):
        if stage.pool:
            out = run / stage.folder
            out.mkdir(parents=True, exist_ok=True)
        else:
            out = _building(stage, run, {"settings": settings_hash(settings), "inputs": inputs})
        if not stage.pool and read_manifest(out) is not None:
            # It was whole when a kill came before the swap.
            _swap_in(stage, run)
            return True
        with TreePeak() as peak:
            outcome = function(Job(recipe, run, out, stage, inputs))
        outcome.counts.check(stage.name)
        built = [out, *(run / f"{folder}.building" for folder in stage.folders[1:])]
        manifest = Manifest(
            stage=stage.name,
            complete=True,
            entered=outcome.counts.entered,
            kept=outcome.counts.kept,
            dropped=dict(sorted(outcome.counts.dropped.items())),
            seconds=round(time.monotonic() - started, 2),
            peak_rss_mb=peak_rss_mb(),
            versions=versions(),
            inputs=inputs,
            settings_hash=settings_hash(settings),
            settings=settings,
            output_hash=outcome.output_hash or folder_hash(built),
            facts=outcome.facts,
            peak_tree_mb=peak.mb,
            parts=_parts(stage, run, "" if stage.pool else ".building"),
        )
        manifest.write(out)
        if not stage.pool:
            _swap_in(stage, run)
    dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
    say(
        f"{stage.name}: {manifest.entered} in, {manifest.kept} kept"
        f"{f' ({dropped} dropped)' if dropped else ''}, {manifest.seconds:.0f} s"
    )
    return True


def _building(stage: Stage, run: Path, state: dict[str, Any]) -> Path:
    """Return the folder to build in; what an earlier try left stays only if the stage can resume it."""
    folders = [run / f"{folder}.building" for folder in stage.folders]
    marker = folders[0] / "building.json"
    same = False
    if stage.resumes and marker.exists():
        try:
            same = json.loads(marker.read_text()) == state
        except ValueError:
            same = False
    for folder in folders:
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    write_json(marker, state)
    return folders[0]


def _swap_in(stage: Stage, run: Path) -> None:
    """Rename what was built into place, keeping the old result beside it.

    The folder with the manifest goes first and comes last: cut short anywhere, the stage reads as not
    complete, never as a mixture of old and new.
    """
    old = read_manifest(run / stage.folder)
    mark = (old.settings_hash[:8] + old.output_hash[:4]) if old else "incomplete"
    for folder in stage.folders:
        target, beside = run / folder, run / f"{folder}.{mark}"
        if target.exists():
            # The same result may stand there from an earlier change to and fro.
            shutil.rmtree(beside, ignore_errors=True)
            target.rename(beside)
    for folder in reversed(stage.folders):
        (run / f"{folder}.building").rename(run / folder)
