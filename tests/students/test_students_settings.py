"""The section [train]: what it refuses, and what its hash covers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from students.options import sft_options
from students.settings import OWN, SFT_ASIDE, TrainSettings


def refusal(**given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TrainSettings.model_validate(given)
    return str(caught.value.errors()[0]["msg"]).removeprefix("Value error, ")


def test_unknown_sft_key_names_the_nearest() -> None:
    assert refusal(sft={"lerning_rate": 1e-4}) == "TRL's SFTConfig has no 'lerning_rate'; did you mean 'learning_rate'?"


def test_all_wrong_sft_keys_come_at_once() -> None:
    assert refusal(sft={"max_lenght": 4, "output_dir": "x", "packing": True}) == (
        "TRL's SFTConfig has no 'max_lenght'; did you mean 'max_steps'?; "
        "'output_dir' is set by Retort (checkpoints lie in the run's folder); "
        "'packing' is set by Retort (TRL's packing cuts rows over max_length without a word)"
    )


def test_unknown_template_names_those_there_are() -> None:
    assert refusal(chat_template="chatm") == "no such template; did you mean 'chatml'?"
    assert refusal(chat_template="zzz") == "no such template; valid here: model, chatml, llama3"


def test_one_tag_alone_is_refused() -> None:
    assert refusal(thought_open="") == "train.thought_open and train.thought_close: set both or neither"


def test_options_are_those_of_trl() -> None:
    import dataclasses

    from trl import SFTConfig

    names = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    assert set(sft_options()) == names
    assert set(OWN) <= names and names >= SFT_ASIDE


def test_logging_and_saving_do_not_change_the_result() -> None:
    plain = TrainSettings(sft={"learning_rate": 1e-4}).result_settings()
    assert TrainSettings(sft={"learning_rate": 1e-4, "save_steps": 5}).result_settings() == plain
    assert TrainSettings(sft={"learning_rate": 2e-4}).result_settings() != plain


def test_settings_import_neither_torch_nor_trl() -> None:
    code = (
        "import sys; from students.settings import TrainSettings; TrainSettings(sft={'optim': 'sgd'}); "
        "print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
