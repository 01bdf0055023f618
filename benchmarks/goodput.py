"""Goodput: output tokens a second that the driver gets out of a real vLLM, against vLLM's own `bench serve`.

`make bench-goodput` serves the bundled teacher on the CPU, one engine, and sends it the same workload in turn: by
`vllm bench serve`, as vLLM measures itself, and by Retort's driver with its journal. The prompts, the output lengths
(`ignore_eos`), what is in flight at once, streaming and the sampling settings are the same; the order is turned round
in every second round. Keeps results/goodput.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import Figure, keep
from pipeline.driver import Driver
from pipeline.engine import Completion, Endpoint, Request
from pipeline.journal import Journal
from pipeline.progress import Progress, say
from pipeline.records import Trace
from pipeline.tally import DriveSettings
from teacher.sampling import trace_of
from teacher.serve import serving
from teacher.settings import EngineSettings, SamplingSettings

MODEL = "teacher/nano/model"
PROMPTS = 600
TOKENS = 200
"""Of each output."""
CONCURRENCY = 256
ROUNDS = 3
COMMAND = "make bench-goodput"
GOAL = 0.95
SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""`vllm bench serve` without the `vllm` command, which the CPU build's does not start."""
QUESTION = "Compute {} + {}."


def main() -> int:
    """Measure both, keep the results, return the exit status."""
    settings = EngineSettings(max_model_len=512, max_num_seqs=CONCURRENCY, kv_cache_gib=1, replicas=1)
    rates: dict[str, list[float]] = {"retort": [], "vllm bench serve": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        with serving(MODEL, settings, out, "teacher") as engine:
            url = engine.endpoints[0].url
            ours(url, out / "warm", 64)
            for number in range(ROUNDS):
                order = [("retort", ours), ("vllm bench serve", theirs)]
                for name, client in order if number % 2 == 0 else order[::-1]:
                    rate = client(url, out / f"{name[:4]}-{number}", PROMPTS)
                    say(f"{name}: {rate:.0f} output tokens/s")
                    rates[name].append(rate)
    mine, peer = (statistics.median(rates[name]) for name in ("retort", "vllm bench serve"))
    figures = [Figure("tokens", mine, "1/s", COMMAND, "vllm bench serve", peer, mine / peer, GOAL)]
    for name, found in rates.items():
        figures += [
            Figure(f"tokens, {name}, round {number}", rate, "1/s", COMMAND) for number, rate in enumerate(found, 1)
        ]
    print(keep("goodput", figures))
    return 0


def prompts(count: int) -> Iterator[str]:
    """Yield the workload's questions."""
    for number in range(count):
        yield QUESTION.format(number % 50, number // 50)


def ours(url: str, out: Path, count: int) -> float:
    """Return output tokens a second of the driver, from the first request to the last durable trace."""
    settings = SamplingSettings(samples=1, temperature=1.0, top_p=1.0, max_tokens=TOKENS)

    def requests() -> Iterator[Request]:
        for number, text in enumerate(prompts(count)):
            params = {"temperature": 1.0, "top_p": 1.0, "max_tokens": TOKENS, "ignore_eos": True}
            yield Request(f"{number:06d}", [{"role": "user", "content": text}], params)

    def row(request: Request, completion: Completion) -> dict[str, Any]:
        return trace_of(request, completion, request.id, 0, settings, MODEL, "").to_dict()

    with Journal(out, Trace.SCHEMA) as journal, Progress("retort", count) as progress:
        begun = time.monotonic()
        driver = Driver([Endpoint(url, MODEL)], journal, row, DriveSettings(concurrency=CONCURRENCY, stream=True))
        tally = driver.drive(requests(), progress)
        return tally.completion_tokens / (time.monotonic() - begun)


def theirs(url: str, out: Path, count: int) -> float:
    """Return output tokens a second as `vllm bench serve` measures them."""
    out.mkdir()
    dataset = out / "prompts.jsonl"
    dataset.write_text("".join(json.dumps({"prompt": text, "output_tokens": TOKENS}) + "\n" for text in prompts(count)))
    command = [
        *(sys.executable, "-c", SERVE, "--backend", "openai-chat"),
        *("--base-url", url.removesuffix("/v1"), "--endpoint", "/v1/chat/completions", "--model", MODEL),
        *("--dataset-name", "custom", "--dataset-path", str(dataset), "--custom-output-len", str(TOKENS)),
        *("--num-prompts", str(count), "--max-concurrency", str(CONCURRENCY), "--ignore-eos", "--temperature", "1.0"),
        *("--top-p", "1.0", "--disable-shuffle"),
        *("--save-result", "--result-dir", str(out), "--result-filename", "result.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vllm bench serve failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    assert found["completed"] == count, f"{found['completed']} of {count} answers"
    return float(found["output_throughput"])


if __name__ == "__main__":
    sys.exit(main())
