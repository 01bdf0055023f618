"""The command line. Composes stages lazily: `retort --help` and the data stages never import torch or vLLM."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import locked, write_json

STAGE_HELP = {
    "problems": "read the problems and their references",
    "traces": "sample the teacher (resumes; never discards)",
    "verify": "judge traces correct, wrong or undecided",
    "filter": "accept correct and readable traces, keep the others with their reason",
    "dataset": "select and write the dataset with its card",
    "train": "fine-tune the student",
    "arms": "train the arms that the student is compared with, on equal tokens",
    "eval": "benchmark base, student and arms",
    "report": "write the report page",
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="retort",
        description="Distil the reasoning of a large teacher model into a small dense one.",
        epilog="Settings may be overridden by key=value, as in: retort run recipes/demo.toml problems.limit=20",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def with_recipe(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("recipe", type=Path, metavar="RECIPE", help="a TOML file, as in recipes/")
        command.add_argument("--run", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="settings to override")
        return command

    run = with_recipe("run", "run all stages that are missing or stale, then print the results")
    run.add_argument("--until", choices=list(STAGE_HELP), metavar="STAGE", help="stop after this stage")
    for name, text in STAGE_HELP.items():
        with_recipe(name, text).add_argument(
            "--rebuild", action="store_true", help="rebuild a stale result, keeping the old one beside it"
        )
    publish = with_recipe("publish", "publish the dataset to the Hugging Face Hub")
    publish.add_argument("--repo", default="", metavar="NAME", help="NAME or OWNER/NAME on the Hub")
    publish.add_argument("--private", action=argparse.BooleanOptionalAction, default=None)
    publish.add_argument("--dry-run", action="store_true", help="say what would go, send nothing")
    planned = with_recipe("plan", "say what the recipe's quota lacks, and from a pilot what it would cost and give")
    planned.add_argument(
        "--pilot",
        type=_count,
        default=0,
        metavar="N",
        help="sample so many problems, though no fewer than 20 of a domain, into the run's own pool",
    )
    served = with_recipe("serve", "serve the recipe's teacher until stopped; a run of the recipe adopts it")
    served.add_argument("--domain", default="", help="serve this domain's own teacher instead of the main one")
    status = commands.add_parser("status", help="show how far a run is")
    status.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    show = commands.add_parser("show", help="show a trace with its problem and verdict; without an id, list some")
    show.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    show.add_argument("trace", nargs="?", default="", metavar="TRACE_ID", help="its id, or the first characters of it")
    settings = commands.add_parser("settings", help="explain the settings of a recipe: keys, defaults, kinds")
    settings.add_argument("section", nargs="?", default="", metavar="SECTION", help="one section alone, as in sampling")
    return top


def _count(text: str) -> int:
    if (count := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{count} is less than nothing")
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0 done, 2 the user can put it right, 130 interrupted."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    # argparse takes key=value only in one place; users write them before and after options.
    if unknown := [text for text in rest if text.startswith("-") or not hasattr(arguments, "overrides")]:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        arguments.overrides += rest
    try:
        return _command(arguments)
    except UserError as error:
        print("\n".join(f"retort: {line}" for line in error.line().splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("retort: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_left() and arguments.command not in ("status", "show", "settings"):
            raise
        # The reader of our output went away (`retort show | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _reader_left() -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _terminate(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _command(arguments: argparse.Namespace) -> int:
    from pipeline import view

    if arguments.command == "status":
        print(view.status(arguments.run))
        return 0
    if arguments.command == "show":
        print(view.show(arguments.run, arguments.trace) if arguments.trace else view.listed(arguments.run))
        return 0
    if arguments.command == "settings":
        print(importlib.import_module("pipeline.reference").reference(arguments.section))
        return 0

    from pipeline.progress import say
    from pipeline.recipe import load_recipe
    from pipeline.stages import STAGES, run_stage

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    run = arguments.run or Path("runs") / recipe.name
    if arguments.command == "publish":
        from pipeline.publish import publish

        publish(recipe, run, arguments.repo, arguments.private, arguments.dry_run)
        return 0
    # A polite kill ends as Ctrl-C does: engines stop, what came back is flushed.
    signal.signal(signal.SIGTERM, _terminate)
    if arguments.command == "serve":
        importlib.import_module("teacher.serve").serve_until_stopped(recipe, run, arguments.domain)
        return 0
    with locked(run):
        if arguments.command != "plan" or arguments.pilot:
            write_json(run / "recipe.json", recipe.to_dict())
        if arguments.command == "plan":
            if arguments.pilot:
                run_stage(STAGES["problems"], recipe, run, rebuild=True)
            print(importlib.import_module("teacher.plan").plan(recipe, run, arguments.pilot))
        elif arguments.command == "run":
            trains = "train" in recipe.given or arguments.until in ("train", "arms", "eval")
            for stage in STAGES.values():
                if stage.name in ("train", "arms", "eval") and not trains:
                    if stage.name == "train":
                        say("no [train] in the recipe: the run ends with its dataset and the report")
                    continue
                run_stage(stage, recipe, run, rebuild=True)
                if stage.name == arguments.until:
                    return 0
            print(importlib.import_module("eval.report").result_table(run))
        else:
            run_stage(STAGES[arguments.command], recipe, run, rebuild=arguments.rebuild)
    return 0


if __name__ == "__main__":
    sys.exit(main())
