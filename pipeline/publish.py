"""Publishing a run's dataset to the Hugging Face Hub, by the Hub's own client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.progress import say
from pipeline.recipe import Recipe, Settings
from pipeline.stages import STAGES, differences


class PublishSettings(Settings):
    """The section [publish]."""

    section: ClassVar[str] = "publish"

    repo: str = ""
    """NAME or OWNER/NAME on the Hub."""
    private: bool = True


OURS = ("manifest.json", "building.json")
CHAIN = ("problems", "traces", "verify", "filter", "dataset")


def check(recipe: Recipe, run: Path) -> list[Path]:
    """Return the files that would be published.

    Raises:
        UserError: a manifest is missing or stale, or its counts do not add up.
    """
    for name in CHAIN:
        manifest = read_manifest(run / STAGES[name].folder)
        if manifest is None or not manifest.complete:
            raise UserError(
                f"the stage '{name}' is not complete in {run}: nothing is published",
                f"run 'retort run {recipe.path} --until dataset' first",
            )
        if stale := differences(STAGES[name], recipe, run):
            raise UserError(
                f"the stage '{name}' in {run} is stale ({', '.join(stale)}): nothing is published",
                f"run 'retort run {recipe.path} --until dataset' first",
            )
        if manifest.entered != manifest.kept + sum(manifest.dropped.values()):
            raise UserError(
                f"the counts of '{name}' in {run} do not add up: nothing is published", "run the stage again"
            )
    folder = run / "dataset"
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in OURS)


def publish(recipe: Recipe, run: Path, repo: str = "", private: bool | None = None, dry_run: bool = False) -> str:
    """Upload the dataset folder and return its address; files that are there already are not sent again.

    Raises:
        UserError: the run is not fit to publish, no repository is named, or the Hub refuses.
    """
    files = check(recipe, run)
    settings = recipe[PublishSettings]
    repo = repo or settings.repo
    private = settings.private if private is None else private
    size = sum(path.stat().st_size for path in files)
    target = f"{repo or '(no repository named)'}{' (private)' if private else ''}"
    say(f"publish: {len(files)} files, {size / 2**20:.1f} MiB to {target}")
    if dry_run:
        for path in files:
            print(path.relative_to(run / "dataset"))
        return ""
    if not repo:
        raise UserError(
            "no repository is named to publish to",
            "add --repo OWNER/NAME",
            "set publish.repo in the recipe",
            "add --dry-run to see what would go",
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            repo_type="dataset",
            folder_path=run / "dataset",
            ignore_patterns=list(OURS),
            commit_message=f"{recipe.name}: {len(files)} files",
        )
    except Exception as error:  # the Hub client raises a dozen unrelated kinds
        first = str(error).strip().split("\n")[0][:200]
        raise UserError(
            f"the Hub did not take {repo} ({type(error).__name__}: {first})",
            "check the connection and the name",
            "log in with 'hf auth login' or set HF_TOKEN to a token that may write",
            "run the same command again: what was sent is not sent again",
        ) from error
    say(f"publish: {url}")
    return str(url)
