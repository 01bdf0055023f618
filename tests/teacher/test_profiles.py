"""Engine profiles: their arithmetic holds, and the installed vLLM knows every flag that comes of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from pipeline.errors import UserError
from teacher.profiles import names, profile
from teacher.serve import other_machines, vllm_command
from teacher.settings import EngineSettings

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for command in json.loads(sys.stdin.read()):
    parser.parse_args(command)
print("parsed")
"""


def test_there_is_a_profile_for_each_of_the_known_teachers() -> None:
    for begin in (
        "deepseek-r1-0528",
        "deepseek-v3.1",
        "deepseek-v3-",
        "qwen3-235b",
        "gpt-oss-120b",
        "qwen3-30b",
        "qwq",
    ):
        assert any(name.startswith(begin) for name in names()), begin


@pytest.mark.parametrize("name", names())
def test_a_profiles_weights_fit_and_leave_room_for_what_it_serves_at_once(name: str) -> None:
    found = profile(name)
    assert found.room_gib >= 1
    # Neither more sequences than the cache holds, or vLLM throws some out and does them anew, nor far fewer.
    assert 0.6 < found.sequences_asked * found.mean_tokens / found.tokens_in_flight < 1.1
    assert found.tokens_in_flight > 2 * found.engine["max_model_len"]
    assert found.why.strip()
    spread = found.engine.get("tensor_parallel", 1) * found.engine.get("data_parallel", 1)
    assert spread == found.gpus


def test_the_latent_cache_of_r1_is_why_attention_is_data_parallel() -> None:
    found = profile("deepseek-r1-0528-8xh200")
    # 131.3 GiB x 0.92 - (654 / 8 + 18) GB - 5 GiB = 22.9 GiB a GPU; 70,272 bytes a token.
    assert found.room_gib == pytest.approx(22.9, abs=0.1)
    assert found.kv_bytes == 70_272
    assert found.tokens_in_flight == pytest.approx(2_800_000, rel=0.01)


def test_a_profile_fills_in_what_the_recipe_leaves_open() -> None:
    settings = EngineSettings.model_validate({"profile": "qwq-32b-2xh100", "max_num_seqs": 7})
    assert (settings.tensor_parallel, settings.max_num_seqs, settings.reasoning_parser) == (2, 7, "deepseek_r1")


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="no profile 'qwq-32b'; did you mean 'qwq-32b-2xh100'"):
        EngineSettings(profile="qwq-32b")


def test_a_recipes_flags_stand_beside_those_of_its_profile() -> None:
    settings = EngineSettings.model_validate({"profile": "deepseek-v3.1-8xh200", "flags": {"seed": 3}})
    assert settings.flags == {"default-chat-template-kwargs": '{"thinking": true}', "seed": 3}


def test_two_machines_need_an_address_and_are_told_the_second_ones_command() -> None:
    name = "deepseek-r1-0528-2x8xh100"
    with pytest.raises(UserError, match=r"8 of 16 .*: set engine.flags = \{data-parallel-address"):
        other_machines("m", "teacher", EngineSettings(profile=name))
    settings = EngineSettings.model_validate({"profile": name, "flags": {"data-parallel-address": "10.0.0.1"}})
    words = other_machines("m", "teacher", settings).split()
    assert words[:4] == ["vllm", "serve", "--model", "m"]
    assert "--headless" in words
    for flag, value in (("start-rank", "8"), ("size-local", "8"), ("size", "16"), ("address", "10.0.0.1")):
        assert words[words.index(f"--data-parallel-{flag}") + 1] == value
    assert not {"--host", "--port"} & {*words}
    assert other_machines("m", "teacher", EngineSettings(profile="deepseek-r1-0528-8xh200")) == ""


@pytest.mark.slow
def test_the_installed_vllm_takes_every_flag() -> None:
    import json

    commands = []
    for name in names():
        settings = EngineSettings.model_validate({"profile": name, "speculative_tokens": 1, "kv_cache_dtype": "fp8"})
        command = vllm_command(profile(name).model, "teacher", 8000, settings)
        commands.append(command[command.index("vllm.entrypoints.openai.api_server") + 1 :])
    done = subprocess.run(
        [sys.executable, "-c", PARSE], input=json.dumps(commands), capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("parsed"), done.stderr[-2000:]
