"""The clients that are measured, each run in a process of its own by its venv's Python.

`python benchmarks/sampling/clients.py NAME URL COUNT CONCURRENCY OUT [stream]` asks COUNT questions, CONCURRENCY at
once, keeps all answers in the folder OUT the way that the library keeps them, and prints a line of JSON: completions,
seconds, CPU seconds with those of child processes, peak memory. Start-up is not timed where it can be left out.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

QUESTION = "Question {}: what is 2 plus 2?"
Client = Callable[[str, int, int, Path, bool], int]


def retort(url: str, count: int, concurrency: int, out: Path, stream: bool) -> int:
    """Retort's own driver, with its journal and the thought set apart: as the stage `traces` uses it."""
    from pipeline.engine import Endpoint
    from teacher.sampling import Ask, sample
    from teacher.settings import SamplingSettings

    settings = SamplingSettings(samples=1, max_tokens=8192, concurrency=concurrency, stream=stream)
    ask = Ask([problem(number) for number in range(count)], out, settings)
    return sample([ask], model="m", revision="", endpoints=[Endpoint(url, "m")], seed=0, what="retort").finished


def problem(number: int) -> Any:
    """Return a question as a problem."""
    from pipeline.records import Problem

    asked = [{"role": "user", "content": QUESTION.format(number)}]
    return Problem.of(asked, domain="math", source="s", license="l", reference="4", verifier="math")  # type: ignore[arg-type]


def driver(url: str, count: int, concurrency: int, out: Path, stream: bool) -> int:
    """The driver alone, requests made one by one: for memory, where the list of problems would count too."""
    import pyarrow as pa

    from pipeline.driver import Driver
    from pipeline.engine import Completion, Endpoint, Request
    from pipeline.journal import Journal
    from pipeline.progress import Progress
    from pipeline.tally import DriveSettings

    def row(request: Request, completion: Completion) -> dict[str, Any]:
        return {"id": request.id, "text": completion.text}

    def asked() -> Iterator[Request]:
        for n in range(count):
            yield Request(f"{n:08d}", [{"role": "user", "content": QUESTION.format(n)}], {"max_tokens": 8192})

    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    with Journal(out, schema) as journal, Progress("driver", count) as progress:
        settings = DriveSettings(concurrency=concurrency, stream=stream)
        return Driver([Endpoint(url, "m")], journal, row, settings).drive(asked(), progress).finished


def datatrove(url: str, count: int, concurrency: int, out: Path, stream: bool) -> int:
    """datatrove's inference runner, writing JSONL, with its checkpoints: without, a kill loses all that was asked."""
    from datatrove.data import Document
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    async def ask(document: Any, generate: Any) -> Any:
        return await generate({"messages": [{"role": "user", "content": document.text}], "max_tokens": 8192})

    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=url.removesuffix("/v1"),
        model_name_or_path="m",
        max_concurrent_generations=concurrency,
        server_ready_delay_sec=0.1,
    )
    documents = [Document(text=QUESTION.format(number), id=str(number)) for number in range(count)]
    writer = JsonlWriter(str(out / "answers"), "${rank}_chunk_${chunk_index}.jsonl", compression=None)
    runner = InferenceRunner(ask, config, writer, checkpoints_local_dir=str(out / "checkpoints"))
    LocalPipelineExecutor([documents, runner], logging_dir=str(out / "logs"), skip_completed=False).run()
    return sum(1 for file in (out / "answers").glob("*.jsonl") for _ in open(file))


def curator(url: str, count: int, concurrency: int, out: Path, stream: bool) -> int:
    """bespokelabs-curator with its OpenAI backend, cache and viewer off where that can be."""
    import litellm

    # The encoding that it counts tokens with is fetched from the network, but for the copy that litellm carries.
    tokenizers = Path(litellm.__file__).parent / "litellm_core_utils/tokenizers"
    os.environ |= {"CURATOR_CACHE_DIR": str(out), "OPENAI_API_KEY": "none", "TELEMETRY_ENABLED": "0"}
    os.environ["TIKTOKEN_CACHE_DIR"] = str(tokenizers)
    from bespokelabs import curator as library

    model = library.LLM(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": url,
            "max_concurrent_requests": concurrency,
            "max_requests_per_minute": 10**9,
            "max_tokens_per_minute": 10**12,
            "require_all_responses": True,
        },
    )
    answered = model([QUESTION.format(number) for number in range(count)])
    return len(answered.dataset if hasattr(answered, "dataset") else answered)


def distilabel(url: str, count: int, concurrency: int, out: Path, stream: bool) -> int:
    """distilabel's TextGeneration step over its OpenAI client; a batch is what it has in flight."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="benchmark", cache_dir=str(out)) as pipeline:
        rows = [{"instruction": QUESTION.format(number)} for number in range(count)]
        load = LoadDataFromDicts(data=rows, batch_size=concurrency)
        model = OpenAILLM(model="m", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 8192})
        load >> TextGeneration(llm=model, input_batch_size=concurrency)
    answered = pipeline.run(use_cache=False)
    return sum(row["generation"] is not None for row in answered["default"]["train"])


CLIENTS: dict[str, Client] = {client.__name__: client for client in (retort, driver, datatrove, curator, distilabel)}


def main() -> int:
    """Run a client and print what it took."""
    name, url, count, concurrency, out = sys.argv[1:6]
    Path(out).mkdir(parents=True, exist_ok=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft != hard else soft, hard))
    begun, used = time.monotonic(), _cpu()
    done = CLIENTS[name](url, int(count), int(concurrency), Path(out), sys.argv[6:] == ["stream"])
    found = {
        "completions": done,
        "seconds": time.monotonic() - begun,
        "cpu": _cpu() - used,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found), flush=True)
    return 0


def _cpu() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main())
