"""One engine, several models of one shape: other weights in place of a new start (25 s and more)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pipeline.records import content_hash
from teacher.models import model_folder
from teacher.serve import Engine

TIMEOUT_S = 600.0
FREE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
STOPS = {"eos_token_id", "bos_token_id", "pad_token_id"}
DEFAULTS = ("top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""What vLLM takes from a generation_config.json where a request is silent; requests always give the rest."""


def shape_of(model: str) -> str | None:
    """Return a hash over all of a model's folder that an engine reads once and keeps, weights aside.

    That is its architecture (config.json), its tokenizer, its chat template, the tokens it stops on and
    the sampling defaults of its generation_config.json. Models of one shape can share an engine. None
    for a model that is no local folder with such files.
    """
    folder = Path(model_folder(model))
    config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer.json")
    if config is None or tokenizer is None or not list(folder.glob("*.safetensors")):
        return None
    settings = _json(folder / "tokenizer_config.json") or {}
    generation = _json(folder / "generation_config.json") or config
    template = folder / "chat_template.jinja"
    tokens = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    eos = settings.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    stops = generation.get("eos_token_id")
    return content_hash(
        {key: value for key, value in config.items() if key not in FREE | STOPS},
        {key: value for key, value in tokenizer.items() if key not in ("padding", "truncation")},
        template.read_text() if template.exists() else settings.get("chat_template"),
        sorted({*(stops if isinstance(stops, list) else [stops]), tokens.get(eos)} - {None}),
        [None if generation is config else generation.get(name) for name in DEFAULTS],
    )


def swap_weights(engine: Engine, model: str) -> str | None:
    """Give an engine that was started with `swaps` the weights of a model of the same shape.

    Nothing may be in flight. What was cached of the old weights is forgotten.

    Returns:
        None where the new weights are in force, else why they are not: the engine is then of no more use.
    """
    folder = str(Path(model_folder(model)).resolve())
    try:
        for endpoint in engine.endpoints:
            root = endpoint.url.removesuffix("/v1")
            done = _post(f"{root}/collective_rpc", {"method": "swap_weights", "args": [folder]})
            unlike = [name for result in done["results"] for name in result["unlike"]]
            if unlike:
                return f"{len(unlike)} weights are not those of {folder} ({', '.join(unlike[:3])})"
            if not _post(f"{root}/reset_prefix_cache", {})["success"]:
                return "its prefix cache could not be emptied"
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError) as error:
        return engine.trouble() or f"{type(error).__name__}: {error}"
    return None


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
