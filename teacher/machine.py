"""The machine under an engine: which device, how many threads, and the environment that tells vLLM so."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline.errors import UserError
from teacher.settings import EngineSettings

SMALL_BYTES = 50_000_000
"""Of weights: about 12M parameters in float32."""


def has_gpu() -> bool:
    """Whether an NVIDIA device is there (asked without importing torch)."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists()


def choose_dtype() -> str:
    """Return bfloat16 where the hardware multiplies it, else float32 (measured 6 times faster on AVX2)."""
    if has_gpu():
        return "bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _few_cores() -> bool:
    return not has_gpu() and len(os.sched_getaffinity(0)) <= 4


def one_process(settings: EngineSettings) -> bool:
    """Whether the scheduler and the model share a process.

    On two cores that saves 13 of 38 s of starting (one import of vLLM less) and gives a 0.9M Qwen2 a
    quarter more tokens a second; what it gives up is the pinning of threads to cores, which pays on
    machines with many.
    """
    spread = settings.tensor_parallel * settings.pipeline_parallel * settings.data_parallel > 1
    return _few_cores() and not spread and not any("parallel-size" in flag for flag in settings.flags)


def replicas(folder: str, settings: EngineSettings) -> int:
    """Return how many engines serve the model side by side: as the settings say, else one a core for small weights.

    What a small model costs is vLLM's Python around it, which takes one core however many there are.

    Raises:
        UserError: several are asked for on a GPU, where they would fight for its memory.
    """
    if settings.replicas > 1 and has_gpu():
        raise UserError(
            f"engine.replicas = {settings.replicas} is for machines without a GPU",
            f"set engine.flags = {{data-parallel-size = {settings.replicas}}}: vLLM then spreads them over the GPUs",
        )
    if settings.replicas:
        return settings.replicas
    return len(os.sched_getaffinity(0)) if one_process(settings) and is_small(folder) else 1


def is_small(folder: str) -> bool:
    """Whether a local model's weights are below SMALL_BYTES."""
    path = Path(folder)
    return 0 < (sum(file.stat().st_size for file in path.glob("*.safetensors")) if path.is_dir() else 0) < SMALL_BYTES


def threads(folder: str) -> int:
    """Return how many threads compute: one for small weights, else one a core.

    Small matrices gain little from a second thread, and the core it took is the server's. Beside another
    busy process a 0.9M Qwen2 gave 4,000 tokens a second with one of two cores and 730 with both.
    """
    return 1 if is_small(folder) else len(os.sched_getaffinity(0))


def rotates_wrongly(folder: str) -> bool:
    """Whether vLLM's CPU kernel for rotary positions would spoil this model: one with latent attention.

    Measured with vLLM 0.32: for interleaved pairs in a three-dimensional tensor, which latent attention
    alone hands it, the kernel's queries are off by as much as their own size, and so is every answer; its
    code in Python is right. A model whose configuration is not at hand counts as one of these.
    """
    try:
        return "kv_lora_rank" in json.loads((Path(folder) / "config.json").read_text())
    except (OSError, ValueError):
        return True


def environment(folder: str, settings: EngineSettings, swaps: bool, number: int = 0) -> dict[str, str]:
    """Return the environment of an engine that serves a folder; what the user has set goes before, but for its safety.

    Args:
        swaps: open vLLM's development endpoints.
        number: which of its replicas: where there are several, each computes on a core of its own.
    """
    added = {"VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib), "VLLM_NO_USAGE_STATS": "1"}
    if _few_cores():
        # Left to itself vLLM keeps a core free for its server: half of a two-core machine.
        cores = sorted(os.sched_getaffinity(0))
        if replicas(folder, settings) > 1:
            cores = [cores[number % len(cores)]]
        added["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        added["OMP_NUM_THREADS"] = str(min(len(cores), threads(folder)))
    if one_process(settings):
        added["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else vLLM overrules the flag
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**added, **os.environ, "PYTHONPATH": paths, "VLLM_SERVER_DEV_MODE": "1" if swaps else "0"}
