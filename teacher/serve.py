"""Serving a model with vLLM: start it, wait for it, watch it, stop it."""

from __future__ import annotations

import importlib.util
import json
import shlex
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.engine import Endpoint
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.progress import say
from pipeline.recipe import Recipe
from pipeline.records import content_hash
from teacher.machine import choose_dtype, environment, has_gpu, one_process, replicas, rotates_wrongly
from teacher.models import model_folder
from teacher.replicas import Engine, Replica
from teacher.settings import EngineSettings, ServedModel, TeacherSettings

POLL_SECONDS = 0.5


@contextmanager
def serving(model: str, settings: EngineSettings, run: Path, role: str, swaps: bool = False) -> Iterator[Engine]:
    """Serve a model while the block runs; one that already serves it for this run is adopted.

    The engine dies with this process, by whatever means it ends. Its log is RUN/logs/engine-ROLE.log, with
    a number before the suffix for each replica after the first.

    Args:
        swaps: open the engine's development endpoints (on the loopback alone, as all of it), by which
            `teacher.swap.swap_weights` gives it other weights. Such an engine is never adopted.

    Raises:
        UserError: vLLM is not installed, the port is taken, the engine does not start.
    """
    folder = model_folder(model)
    state = run / f"engine-{role}.json"
    mark = content_hash(folder, settings.model_dump(mode="json"), _weights_mark(folder), swaps)
    # What an engine that swaps serves by now is not what its state says.
    adopted = None if swaps else _adopt(state, mark, model)
    if adopted is not None:
        say(f"{role}: adopted the engine that listens at {adopted.endpoints[0].url}")
        yield adopted
        return
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "serving a model needs vLLM, which is not installed",
            "run 'make setup'",
            "install the extra: pip install 'retort[cpu]' or 'retort[gpu]'",
            "set teacher.endpoints to an engine that runs elsewhere",
        )
    if other := other_machines(folder, model, settings):
        say(f"{role}: this machine serves its share; for each other one, with its own first rank:\n  {other}")
    (run / "logs").mkdir(parents=True, exist_ok=True)
    engine = Engine([], [], may_restart=not swaps)
    try:
        for number in range(replicas(folder, settings)):
            port = free_port(settings.port + number if settings.port else 0)
            log = run / "logs" / (f"engine-{role}.{number}.log" if number else f"engine-{role}.log")
            log.unlink(missing_ok=True)
            command = [sys.executable, "-m", "teacher.keeper", str(state), "--"]
            command += vllm_command(folder, model, port, settings, swaps)
            say(f"{role}: starting vLLM for {model} on port {port} (log: {log})")
            endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", model)
            engine.replicas.append(
                Replica.started(
                    endpoint, log, command, environment(folder, settings, swaps, number), settings.start_timeout_s
                )
            )
            engine.endpoints.append(endpoint)
            engine.logs.append(log)
        _await(engine, settings.start_timeout_s, role)
        found = {"urls": [endpoint.url for endpoint in engine.endpoints], "logs": [str(log) for log in engine.logs]}
        write_json(state, {**found, "pids": [replica.process.pid for replica in engine.replicas], "mark": mark})
        yield engine
    finally:
        for replica in engine.replicas:
            replica.process.terminate()
        for replica in engine.replicas:
            replica.process.wait()
        state.unlink(missing_ok=True)


def vllm_command(folder: str, name: str, port: int, settings: EngineSettings, swaps: bool = False) -> list[str]:
    """Return the command that serves a model; every vLLM flag that Retort sets stands here."""
    # The `vllm` command of the CPU build does not start (facts: "No package metadata"); its module does.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    flags: dict[str, str | int | float | bool] = {
        "model": folder,
        "served-model-name": name,
        "host": "127.0.0.1",
        "port": port,
        "max-model-len": settings.max_model_len,
        "max-num-seqs": settings.max_num_seqs,
        "dtype": choose_dtype() if settings.dtype == "auto" else settings.dtype,
        "stream-interval": settings.stream_interval,
        "disable-uvicorn-access-log": True,
        **_spread(settings),
    }
    if has_gpu():
        flags["gpu-memory-utilization"] = settings.gpu_memory
    if not has_gpu():
        # Compiling takes minutes and gains little where the matrices are small.
        flags["enforce-eager"] = True
        if rotates_wrongly(folder):
            flags["compilation-config"] = '{"custom_ops": ["all", "-rotary_embedding"]}'
    if one_process(settings):
        flags["distributed-executor-backend"] = "uni"
    if swaps:
        flags["worker-extension-cls"] = "teacher.worker.WeightSwap"
    for flag, value in {**flags, **settings.flags}.items():
        if value is True:
            command.append(f"--{flag}")
        elif value is not False:
            command += [f"--{flag}", str(value)]
    return command


def other_machines(folder: str, name: str, settings: EngineSettings) -> str:
    """Return the command that serves the share of the second of several machines; "" where one serves all.

    Raises:
        UserError: it is not said where the others find the first.
    """
    local = settings.data_parallel_local
    if local is None or local >= settings.data_parallel:
        return ""
    if "data-parallel-address" not in settings.flags:
        raise UserError(
            f"{local} of {settings.data_parallel} data-parallel engines are on this machine, and the others could not "
            "find it",
            "set engine.flags = {data-parallel-address = ...} to the address of this machine",
            "set engine.data_parallel_local to engine.data_parallel where all GPUs are in this one",
        )
    # Only `vllm serve` knows how to be headless, and a machine of such GPUs runs it.
    shared = vllm_command(folder, name, 0, settings)[3:]
    at = [shared.index(flag) for flag in ("--host", "--port")]
    kept = [part for place, part in enumerate(shared) if not any(place in (one, one + 1) for one in at)]
    return shlex.join(["vllm", "serve", *kept, "--headless", "--data-parallel-start-rank", str(local)])


def _spread(settings: EngineSettings) -> dict[str, str | int | float | bool]:
    """The flags that spread a model over GPUs, and those that are set only where the recipe asks."""
    wanted: dict[str, str | int | float | bool | None] = {
        "tensor-parallel-size": settings.tensor_parallel if settings.tensor_parallel > 1 else None,
        "pipeline-parallel-size": settings.pipeline_parallel if settings.pipeline_parallel > 1 else None,
        "data-parallel-size": settings.data_parallel if settings.data_parallel > 1 else None,
        "data-parallel-size-local": settings.data_parallel_local,
        "enable-expert-parallel": settings.expert_parallel or None,
        "quantization": settings.quantization or None,
        "kv-cache-dtype": settings.kv_cache_dtype or None,
        "reasoning-parser": settings.reasoning_parser or None,
    }
    if settings.prefix_caching is not None:
        wanted["enable-prefix-caching" if settings.prefix_caching else "no-enable-prefix-caching"] = True
    if settings.speculative_tokens:
        drafted = {"method": "mtp", "num_speculative_tokens": settings.speculative_tokens}
        wanted["speculative-config"] = json.dumps(drafted)
    return {name: value for name, value in wanted.items() if value is not None}


def at_revision(settings: EngineSettings, revision: str) -> EngineSettings:
    """Return the engine's settings with the Hub revision to serve; a flag of the recipe's own goes before."""
    return settings.model_copy(update={"flags": {"revision": revision, **settings.flags}}) if revision else settings


def free_port(wanted: int) -> int:
    """Return the wanted port, or a free one for 0.

    Raises:
        UserError: the wanted port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise UserError(
                f"port {wanted} on 127.0.0.1 cannot be used ({error.strerror})",
                "set engine.port to another, or to 0 for a free one",
                "stop what listens there",
                f"set teacher.endpoints=['http://127.0.0.1:{wanted}/v1'] if it is an engine of yours",
            ) from error
        return int(probe.getsockname()[1])


def _weights_mark(folder: str) -> list[list[str | int]]:
    """Sizes and times of a local model's weights: a student trained anew is another model."""
    found = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in found]


def _adopt(state: Path, mark: str, model: str) -> Engine | None:
    try:
        found = json.loads(state.read_text())
        if found["mark"] != mark or not all(map(_healthy, found["urls"])):
            return None
        return Engine([Endpoint(url, model) for url in found["urls"]], list(map(Path, found["logs"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _await(engine: Engine, timeout_s: float, role: str) -> None:
    started = said = time.monotonic()
    while not all(_healthy(endpoint.url) for endpoint in engine.endpoints):
        if trouble := engine.trouble():
            raise UserError(
                f"{role}: {trouble}",
                "read the log",
                "correct the engine's settings (max_model_len, dtype, flags)",
                "set teacher.endpoints to an engine that runs elsewhere",
            )
        now = time.monotonic()
        if now - started > timeout_s:
            raise UserError(
                f"{role}: the engine did not answer within {timeout_s:.0f} s (log: {engine.logs[0]})",
                "raise engine.start_timeout_s",
                "read the log",
            )
        if now - said > 30:
            said = now
            say(f"{role}: waiting for the engine, {now - started:.0f} s")
        time.sleep(POLL_SECONDS)
    say(f"{role}: the engine is ready after {time.monotonic() - started:.0f} s")


def serve_until_stopped(recipe: Recipe, run: Path, domain: str = "") -> None:
    """Serve the recipe's teacher until Ctrl-C or a kill; a run of the same recipe adopts it.

    Args:
        domain: serve that domain's own teacher in place of the one of all others.

    Raises:
        UserError: the domain has no teacher of its own, the engine does not start, or dies.
    """
    teacher: ServedModel = recipe[TeacherSettings]
    role = "teacher"
    if domain:
        own = {str(name): other for name, other in recipe[TeacherSettings].domains.items()}
        if domain not in own:
            known = f"domains that have one: {', '.join(own)}" if own else "the recipe has one teacher for all"
            raise UserError(f"no teacher of its own for the domain '{domain}'", known, "leave --domain out")
        teacher, role = own[domain], f"teacher-{domain}"
    if teacher.endpoints or teacher.endpoints_file:
        raise UserError(
            "teacher.endpoints names engines that are served already",
            "set teacher.endpoints=[] (and endpoints_file='') to serve the model here",
        )
    with serving(teacher.model, at_revision(teacher.engine, teacher.revision), run, role) as engine:
        print(*(endpoint.url for endpoint in engine.endpoints), sep="\n", flush=True)
        while (trouble := engine.tend(()) if engine.replicas else engine.trouble()) is None:
            time.sleep(POLL_SECONDS)
        raise UserError(trouble, "read the log")
