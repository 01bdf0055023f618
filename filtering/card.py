"""The dataset's card: README.md with the configurations that `datasets` reads, and counts that reconcile."""

from __future__ import annotations

from typing import Any

from filtering.settings import DatasetSettings, FilterSettings
from pipeline.errors import UserError
from pipeline.files import write_whole
from pipeline.manifest import Counts, Manifest, read_manifest
from pipeline.parts import read_rows
from pipeline.stages import STAGES, Job


def write_card(job: Job, counts: Counts, tokens: int, rejected: int) -> None:
    """Write dataset/README.md from the manifests of the stages before it."""
    recipe = job.recipe
    before = {name: _manifest(job, name) for name in ("problems", "traces", "verify", "filter")}
    sources = sorted(
        {(row["source"], row["license"]) for row in read_rows(job.folder("problems"), ["source", "license"])}
    )
    teacher, sampling = before["traces"].settings["teacher"], before["traces"].settings["sampling"]
    licenses = sorted({license for _, license in sources})
    lines = [
        "---",
        f"pretty_name: {recipe.name}",
        f"license: {licenses[0].lower() if len(licenses) == 1 else 'other'}",
        "task_categories: [text-generation]",
        "tags: [reasoning, distillation, synthetic]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - {split: train, path: data/train-*.parquet}",
        "- config_name: rejected",
        "  data_files:",
        "  - {split: train, path: data/rejected-*.parquet}",
        "---",
        "",
        f"# {recipe.name}",
        "",
        recipe.description or "Verified reasoning traces.",
        "",
        f"{counts.kept} examples, {tokens} tokens of the teacher. "
        "`messages` holds the conversation with the thought inside `<think>` tags; `problem`, `answer` (the reference) "
        "and the lineage stand beside it. The configuration `rejected` holds what was not accepted, with its `reason`.",
        "",
        "## From problem to row",
        "",
        "| step | in | kept | dropped |",
        "|---|---|---|---|",
        *(_row(name, manifest.entered, manifest.kept, manifest.dropped) for name, manifest in before.items()),
        _row("dataset", counts.entered, counts.kept, counts.dropped),
        "",
        "An undecided verdict (nothing to read an answer from, out of time) is not a wrong one; neither is accepted.",
        "",
        "## Teacher",
        "",
        f"`{teacher['model']}`{' at ' + teacher['revision'] if teacher['revision'] else ''}, "
        f"temperature {sampling['temperature']}, top-p {sampling['top_p']}, {sampling['samples']} samples a problem. "
        "The teacher's own licence and terms apply to what it wrote.",
        "",
        "## Rules, in order",
        "",
        *(f"- `{rule['rule']}` {_thresholds(rule)}".rstrip() for rule in recipe[FilterSettings].rules),
        f"- then the {recipe[DatasetSettings].select} {recipe[DatasetSettings].max_per_problem} a problem",
        "",
        "## Sources",
        "",
        "| source | licence |",
        "|---|---|",
        *(f"| {source} | {license} |" for source, license in sources),
        "",
        "## Limits",
        "",
        "Correctness means that the final answer agrees with the reference; the steps of a thought are not checked. "
        "Decontamination against benchmarks: not run.",
        "",
        f"Rejected traces published beside these: {rejected}. Rebuild with `retort run {recipe.path}`.",
        "",
    ]
    write_whole(job.out / "README.md", "\n".join(lines))


def _manifest(job: Job, name: str) -> Manifest:
    manifest = read_manifest(job.run / STAGES[name].folder)
    if manifest is None:
        raise UserError(f"the stage '{name}' is not complete in {job.run}", f"run 'retort {name} {job.recipe.path}'")
    return manifest


def _row(name: str, entered: int, kept: int, dropped: dict[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "-"
    return f"| {name} | {entered} | {kept} | {reasons} |"


def _thresholds(rule: dict[str, Any]) -> str:
    given = ", ".join(f"{key} = {value}" for key, value in rule.items() if key != "rule")
    return f"({given})" if given else ""
