"""What a finished run left, gathered for the report with bounded memory."""

from __future__ import annotations

import itertools
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.manifest import read_manifest
from pipeline.parts import part_paths, read_rows
from pipeline.stages import STAGES

FUNNEL = ("problems", "traces", "verify", "filter", "dataset", "train", "arms", "eval")
LOOKED_AT = 2_000  # rows from which shown traces are chosen: one row group of a part
SHOWN = 8  # traces shown of each side; the report promises "a few"
CLIP = 20_000  # characters of a thought or answer that are shown; whole texts stay in the run's parts


def funnel(run: Path) -> list[dict[str, Any]]:
    """Return a row for each stage of FUNNEL; `ran` is False where it left no manifest.

    `arms` has one only where arms were trained. `peak_mb` is the memory of the whole tree of processes
    (`pipeline.memory`), or, where a stage did not measure that, the largest single process.
    """
    rows: list[dict[str, Any]] = []
    for stage in FUNNEL:
        manifest = read_manifest(run / STAGES[stage].folder)
        if stage == "arms" and (manifest is None or not manifest.entered):
            continue
        if manifest is None:
            rows.append({"stage": stage, "ran": False})
            continue
        rows.append(
            {
                "stage": stage,
                "ran": True,
                "entered": manifest.entered,
                "kept": manifest.kept,
                "dropped": manifest.dropped,
                "seconds": manifest.seconds,
                "peak_mb": manifest.peak_tree_mb or manifest.peak_rss_mb,
            }
        )
    return rows


def versions(run: Path) -> dict[str, list[str]]:
    """Return the versions that the stages' manifests name, by package; several where stages differ."""
    found: dict[str, list[str]] = {}
    for stage in FUNNEL:
        manifest = read_manifest(run / STAGES[stage].folder)
        for package, version in (manifest.versions if manifest else {}).items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return found


def read_json(path: Path) -> Any:
    """Return a JSON file's value, None where there is no file.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})", "run the stage that writes it again") from error


def verdict_counts(run: Path) -> list[tuple[str, str, int]] | None:
    """Return (state, decided by, count), most first; None where nothing was verified."""
    folder = run / "verdicts"
    if not part_paths(folder):
        return None
    counts = Counter((row["state"], row["decided_by"]) for row in read_rows(folder, ["state", "decided_by"]))
    return [(state, by, count) for (state, by), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def rejection_reasons(run: Path) -> list[tuple[str, int]] | None:
    """Return (reason, count), most first; None where nothing was filtered."""
    folder = run / "rejected"
    if not part_paths(folder):
        return None
    counts = Counter(str(row["reason"]) for row in read_rows(folder, ["reason"]))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def lengths(folder: Path) -> array[int] | None:
    """Return the completion tokens of each trace of a folder (4 bytes each), None where it has no parts."""
    if not part_paths(folder):
        return None
    return array("i", (row["completion_tokens"] or 0 for row in read_rows(folder, ["completion_tokens"])))


def token_counts(by_side: Mapping[str, array[int] | None]) -> list[dict[str, Any]]:
    """Return a row of traces, total, mean and largest completion tokens for each side that has traces."""
    rows = []
    for side, tokens in by_side.items():
        if tokens:
            total = sum(tokens)
            rows.append(
                {"side": side, "traces": len(tokens), "total": total, "mean": total / len(tokens), "max": max(tokens)}
            )
    return rows


def losses(run: Path) -> list[tuple[float, float]]:
    """Return (step, loss) of the training log, [] where there is none.

    Raises:
        UserError: training.json is not JSON.
    """
    found = read_json(run / "student" / "training.json")
    log = found.get("loss") or [] if isinstance(found, dict) else []
    return [
        (float(line["step"]), float(line["loss"]))
        for line in log
        if isinstance(line, dict) and line.get("step") is not None and line.get("loss") is not None
    ]


def some_traces(folder: Path) -> list[dict[str, Any]]:
    """Return at most SHOWN traces out of the first LOOKED_AT, of every reason in turn.

    Within a reason they come in the order of their ids, which are hashes: an even draw, the same
    each time.
    """
    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in itertools.islice(read_rows(folder), LOOKED_AT):
        by_reason[str(row.get("reason"))].append(row)
    sides = [sorted(rows, key=lambda row: str(row["id"])) for _, rows in sorted(by_reason.items())]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*sides))
    return [_shown(row) for row in itertools.islice((row for row in turns if row is not None), SHOWN)]


def questions(run: Path, wanted: set[str]) -> dict[str, str]:
    """Return the text of the problems wanted, by id; turns after the first are marked by their role."""
    found: dict[str, str] = {}
    for row in read_rows(run / "problems", ["id", "messages"]) if wanted else ():
        if row["id"] in wanted:
            turns = row["messages"]
            text = "\n\n".join(f"[{turn['role']}] {turn['content']}" for turn in turns)
            found[row["id"]] = clipped(text if len(turns) > 1 else turns[0]["content"])
            if len(found) == len(wanted):
                break
    return found


def clipped(text: str) -> str:
    """Return the text, cut after CLIP characters with a note that says how much is left out."""
    return text if len(text) <= CLIP else f"{text[:CLIP]}\n[{len(text) - CLIP} more characters in the run's parts]"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "problem_id": row["problem_id"],
        "tokens": row["completion_tokens"],
        "finish_reason": row["finish_reason"],
        "reason": row.get("reason"),
        "state": row.get("state"),
        "thought": None if row["thought"] is None else clipped(row["thought"]),
        "answer": None if row["answer"] is None else clipped(row["answer"]),
        "text": clipped(row["text"] or ""),
    }
