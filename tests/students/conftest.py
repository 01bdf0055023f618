"""A byte-level tokenizer with ChatML's tokens, a tiny random Llama, datasets and jobs for the students' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.recipe import Recipe
from pipeline.records import Example
from pipeline.stages import STAGES, Job
from students.settings import TrainSettings

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def chat(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="session")
def plain_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


@pytest.fixture
def tokenizer(plain_tokenizer: Any) -> Any:
    from copy import deepcopy

    from students.render import set_template

    found = deepcopy(plain_tokenizer)
    set_template(found, TrainSettings())
    return found


@pytest.fixture(scope="session")
def base(plain_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(plain_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=plain_tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        bos_token_id=plain_tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    plain_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def make_job(base: str, tmp_path: Path) -> Callable[..., Job]:
    """A job over a run whose dataset holds the given conversations."""

    def make(conversations: list[list[dict[str, str]]], name: str = "run", **settings: Any) -> Job:
        run = tmp_path / name
        data = run / "dataset" / "data"
        data.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                **dict.fromkeys(Example.SCHEMA.names),
                "uuid": f"row-{place}",
                "messages": messages,
                "license": "cc-by-4.0",
                "source": "made",
            }
            for place, messages in enumerate(conversations)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=Example.SCHEMA), data / "train-00000-of-00001.parquet")
        kind = TrainSettings.model_validate({"base": base, "max_length": 256, **settings})
        recipe = Recipe(Path("test.toml"), "tiny", "", 7, {"train": kind})
        out = run / "student.building"
        out.mkdir(exist_ok=True)
        return Job(recipe, run, out, STAGES["train"])

    return make


@pytest.fixture
def conversations() -> list[list[dict[str, str]]]:
    return [chat(f"{n}+{n}?", f"<think>\n{n} and {n}\n</think>\n\n{n + n}") for n in range(8)]
