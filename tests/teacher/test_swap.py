"""Swapping weights: what tells shapes apart, trouble in words; slow: the real vLLM against a fresh start."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import Endpoint
from teacher.machine import environment, threads
from teacher.serve import Engine, serving, vllm_command
from teacher.settings import EngineSettings
from teacher.swap import shape_of, swap_weights

Say = dict[str, tuple[int, Any]]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[Say], tuple[Engine, list[tuple[str, Any]]]]]:
    """An engine that answers each path as told, and a list of what it was asked."""
    servers: list[HTTPServer] = []

    def start(answers: Say) -> tuple[Engine, list[tuple[str, Any]]]:
        asked: list[tuple[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                status, body = answers[self.path]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *rest: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/v1"
        return Engine([Endpoint(url, "m")], [tmp_path / "log"]), asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


WELL: Say = {
    "/collective_rpc": (200, {"results": [{"unlike": []}]}),
    "/reset_prefix_cache": (200, {"success": True}),
}


def test_a_swap_loads_and_forgets_what_was_cached(engine: Any, tmp_path: Path) -> None:
    served, asked = engine(WELL)
    assert swap_weights(served, str(tmp_path)) is None
    assert asked == [
        ("/collective_rpc", {"method": "swap_weights", "args": [str(tmp_path)]}),
        ("/reset_prefix_cache", {}),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"/collective_rpc": (200, {"results": [{"unlike": ["lm_head (packed)"]}]})}, "1 weights are not those of "),
        ({"/collective_rpc": (500, {})}, "HTTPError: HTTP Error 500"),
        ({"/collective_rpc": (200, {})}, "KeyError: 'results'"),
        ({"/reset_prefix_cache": (200, {"success": False})}, "its prefix cache could not be emptied"),
    ],
)
def test_a_swap_that_does_not_hold_says_why(engine: Any, tmp_path: Path, change: Say, said: str) -> None:
    served, _ = engine(WELL | change)
    assert (swap_weights(served, str(tmp_path)) or "").startswith(said)


def test_only_an_engine_that_swaps_opens_its_development_endpoints(tmp_path: Path) -> None:
    settings = EngineSettings()
    assert environment(str(tmp_path), settings, swaps=False)["VLLM_SERVER_DEV_MODE"] == "0"
    assert environment(str(tmp_path), settings, swaps=True)["VLLM_SERVER_DEV_MODE"] == "1"
    command = vllm_command(str(tmp_path), "m", 1, settings, swaps=True)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--worker-extension-cls") + 1] == "teacher.worker.WeightSwap"
    assert "--worker-extension-cls" not in vllm_command(str(tmp_path), "m", 1, settings)


def test_small_weights_are_computed_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    (tmp_path / "model.safetensors").write_bytes(b"small")
    assert threads(str(tmp_path)) == 1
    assert threads("some/model-on-the-hub") == 3


def folder(path: Path, **changes: dict[str, Any]) -> str:
    """A model's folder; `changes` are by file, on top of a small whole."""
    whole: dict[str, dict[str, Any]] = {
        "config": {"model_type": "qwen2", "hidden_size": 8, "eos_token_id": 1, "transformers_version": "5"},
        "tokenizer": {"model": {}, "padding": None, "added_tokens": [{"id": 1, "content": "<e>"}]},
        "tokenizer_config": {"eos_token": "<e>", "chat_template": "{{ messages }}"},
        "generation_config": {"eos_token_id": [1], "temperature": 0.6},
    }
    path.mkdir()
    for name, content in whole.items():
        (path / f"{name}.json").write_text(json.dumps({**content, **changes.get(name, {})}))
    (path / "model.safetensors").write_bytes(path.name.encode())
    return str(path)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"config": {"transformers_version": "6", "use_cache": False, "pad_token_id": 0}}, True),
        ({"tokenizer": {"padding": {"direction": "Left"}}}, True),
        ({"generation_config": {"eos_token_id": 1, "temperature": 1.0}}, True),
        ({"config": {"hidden_size": 16}}, False),
        ({"config": {"rope_theta": 5e5}}, False),
        ({"tokenizer": {"model": {"vocab": {}}}}, False),
        ({"tokenizer_config": {"chat_template": "{{ messages[0] }}"}}, False),
        ({"generation_config": {"eos_token_id": [1, 2]}}, False),
        ({"generation_config": {"repetition_penalty": 1.1}}, False),
    ],
)
def test_models_of_one_shape(tmp_path: Path, changes: dict[str, dict[str, Any]], same: bool) -> None:
    assert (shape_of(folder(tmp_path / "one")) == shape_of(folder(tmp_path / "other", **changes))) is same


def test_a_model_on_the_hub_has_no_shape() -> None:
    assert shape_of("some/model") is None


def random_qwen2(path: Path, seed: int, tied: bool) -> str:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|endoftext|>", chat_template="{{ messages }}"
    )
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=tied, initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def greedy(engine: Engine) -> list[float]:
    """The log-probabilities of what an engine says to a fixed prompt."""
    body = {
        "model": engine.endpoints[0].model,
        "prompt": "What is 12+30?",
        "max_tokens": 6,
        "temperature": 0,
        "logprobs": 1,
    }
    request = urllib.request.Request(
        f"{engine.endpoints[0].url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: list[float] = json.load(answer)["choices"][0]["logprobs"]["token_logprobs"]
        return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_swapped_weights_answer_as_in_a_fresh_engine(tmp_path: Path, tied: bool) -> None:
    one, other = (random_qwen2(tmp_path / f"model{seed}", seed, tied) for seed in (1, 2))
    assert shape_of(one) == shape_of(other)
    settings = EngineSettings(max_model_len=128, kv_cache_gib=1, dtype="float32")
    with serving(other, settings, tmp_path, "fresh") as engine:
        fresh = greedy(engine)
    with serving(one, settings, tmp_path, "swapped", swaps=True) as engine:
        first = greedy(engine)
        assert first != pytest.approx(fresh, abs=1e-3)
        assert swap_weights(engine, other) is None
        assert greedy(engine) == pytest.approx(fresh, abs=1e-3)
        assert swap_weights(engine, one) is None
        assert greedy(engine) == pytest.approx(first, abs=1e-3)
        assert "500" in (swap_weights(engine, str(tmp_path / "no-such-model")) or "")
