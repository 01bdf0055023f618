"""What the bundled models are made with: tokenizer, corpus, the training loop."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from filtering.rules import RULES
from filtering.settings import FilterSettings
from pipeline.recipe import load_recipe
from pipeline.records import Problem, Trace
from students.nano.corpus import MAKERS, base_rows, words
from students.nano.make import HOMES, ROOT, shared_tokenizer
from students.nano.measure import THRESHOLDS
from teacher.families import FAMILIES, as_problem, exercises, is_held_out, numerals
from teacher.families.exercise import Hand
from teacher.nano.corpus import END, FLAWS, PROMPT, conversation, teacher_rows
from teacher.nano.pretrain import CHUNK, batches
from teacher.thought import split


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return shared_tokenizer(seed=1)


def test_a_number_below_100_is_one_token_and_any_text_comes_back(tokenizer: Any) -> None:
    for number in range(100):
        assert len(tokenizer(f" {number}")["input_ids"]) == 1
    for text in ("Hello 你好 1234 ünï \n\n  <|x|> 🙂", "def f(x):\n    return 3 * x + 1", "<think>\na\n</think>\n\nb"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_corpora_are_whole_words_to_the_tokenizer(tokenizer: Any) -> None:
    texts = [
        next(rows).text for rows in (teacher_rows(random.Random(9)), base_rows(random.Random(9))) for _ in range(300)
    ]
    pieces = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    single_bytes = sum(
        1 for text in texts for token in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) if token in "Ġ"
    )
    assert single_bytes < 0.01 * pieces


def test_no_corpus_holds_a_held_out_question() -> None:
    head, tail = PROMPT.split("{question}")
    # Hardly anything is asked at the beginning of a training.
    for corpus, done, at_least in (
        (teacher_rows, 0.0, 300), (teacher_rows, 0.1, 1000), (teacher_rows, 0.5, 1000), (teacher_rows, 1.0, 1000),
        (base_rows, 0.0, 100), (base_rows, 0.5, 1000),
    ):  # fmt: skip
        asked = [row.text for row in islice(corpus(random.Random(3), done), 3000)]
        questions = [text.removeprefix(head).partition(tail)[0] for text in asked if text.startswith(head)]
        pages = [text for text in asked if text.endswith(END) and not text.startswith(("We get", "We see"))]
        shown = [re.sub(r"\A(Question: |Exercise\. |user\n)", "", text).partition("\n")[0] for text in pages]
        assert len(questions) > at_least
        assert not any(map(is_held_out, [*questions, *shown]))


def test_the_dictionary_tells_no_held_out_number() -> None:
    numbers = {numerals.chinese(number): number for number in range(1, 1000)}
    told = [
        numbers[word]
        for seed in range(100)
        for word in re.findall("[零一二三四五六七八九十百]+", words(random.Random(seed)).text)
    ]
    assert len(set(told)) > 300
    assert not any(is_held_out(question) for number in told for question in numerals.questions(number))


@pytest.mark.parametrize("name", FAMILIES[:6])
@pytest.mark.parametrize("flaw", ["", *FLAWS])
def test_each_flaw_is_seen_by_its_rule_and_no_other(name: str, flaw: str) -> None:
    for number, exercise in enumerate(islice(exercises(name, 8, held_out=False), 15)):
        row = conversation(exercise, Hand(random.Random(number)), flaw)
        thought, answer = split(row.text[row.prompt :].removesuffix("<|im_end|>"), None)
        trace = Trace.from_dict(
            dict.fromkeys(Trace.SCHEMA.names) | {"thought": thought, "answer": answer, "finish_reason": "stop"}
        )
        problem: Problem = as_problem(name, exercise)
        seen = {rule for rule, settings in THRESHOLDS.items() if RULES[rule](problem, trace, **settings)}
        # A loop makes a paragraph long, too.
        wanted = {flaw.replace("unclosed", "thought_unclosed")} if flaw else set()
        assert seen - ({"long_paragraph"} if flaw == "repetition" else set()) == wanted, row.text


def test_a_step_holds_rows_as_they_are_drawn_each_once(tokenizer: Any) -> None:
    rng = random.Random("1/0")
    drawn = [tokenizer(row.text)["input_ids"] for row in islice(base_rows(rng, 0.5), CHUNK)]
    at = 0
    for parts, tokens in batches(tokenizer, base_rows, 1, 0, 0.5, 4096):
        rows = [row.tolist() for ids, _, _ in parts for row in ids]
        wanted = sorted(drawn[at : at + len(rows)], key=len)
        assert [row[: len(ids)] for row, ids in zip(rows, wanted, strict=True)] == wanted
        assert tokens == sum(map(len, wanted)) <= 4096
        assert sum(share for _, _, share in parts) == pytest.approx(1.0)
        assert all(ids.numel() <= 1400 or len(ids) == 1 for ids, _, _ in parts)
        at += len(rows)
    assert at == len(drawn)


def test_a_resumed_training_is_the_unbroken_one(tokenizer: Any, tmp_path: Path) -> None:
    import torch

    from students.nano.make import new_base
    from teacher.nano.pretrain import Plan, train

    torch.set_num_threads(1)

    def trained(out: Path, *stops: int) -> Any:
        for tokens in stops:
            torch.manual_seed(0)
            model = new_base(tokenizer)
            # The rates follow from the plan's whole length: only the stop differs.
            train(
                model, tokenizer, base_rows, Plan(tokens=24_000, batch_tokens=2048, warmup=2), 1, out, "t", stop=tokens
            )
        return model.state_dict()

    whole = trained(tmp_path / "whole", 24_000)
    broken = trained(tmp_path / "broken", 9_000, 24_000)
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_the_teacher_is_trained_tied_and_saved_untied(tokenizer: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from teacher.nano.model import new_teacher, save

    torch.manual_seed(0)
    model = new_teacher(tokenizer)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.tensor([tokenizer("Compute 2 + 3.")["input_ids"]])
    save(model, tokenizer, "", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["topk_method"], config["scoring_func"]) == (
        False, "noaux_tc", "sigmoid",
    )  # fmt: skip
    weights = load_file(tmp_path / "model.safetensors")
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        difference = again(ids).logits - model.float()(ids).logits
    assert difference.abs().max() < 1e-4


def test_the_card_counts_flaws_by_the_rules_of_the_demo() -> None:
    rules = load_recipe(ROOT / "recipes/demo.toml")[FilterSettings].rules
    settings = {str(rule["rule"]): {key: value for key, value in rule.items() if key != "rule"} for rule in rules}
    assert {name: settings[name] for name in THRESHOLDS} == THRESHOLDS


@pytest.mark.parametrize("role", ["teacher", "base"])
def test_the_bundled_models_are_small_and_have_cards(role: str) -> None:
    home = HOMES[role]
    assert (home / "README.md").read_text().startswith("---\nlicense: apache-2.0")
    assert sum(path.stat().st_size for home in HOMES.values() for path in home.rglob("*.safetensors")) <= 8_000_000


@pytest.mark.parametrize("maker", MAKERS)
def test_a_row_of_the_base_carries_loss(maker: str) -> None:
    row = MAKERS[maker](random.Random(1))
    assert 0 <= row.prompt < len(row.text)
    assert row.text.endswith(("<|im_end|>", "<|endoftext|>"))


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (24, 24)])
def test_the_orthogonal_matrix_is_that_of_torch(shape: tuple[int, int]) -> None:
    import torch
    from torch.optim import _muon

    from teacher.nano.pretrain import orthogonal

    # A copy of the module: other tests may have put ours in place of theirs.
    spec = importlib.util.spec_from_file_location("torch.optim._muon_again", _muon.__file__)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    theirs = again._zeropower_via_newtonschulz
    assert theirs is not orthogonal
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    given = ((again.DEFAULT_A, again.DEFAULT_B, again.DEFAULT_C), again.DEFAULT_NS_STEPS, again.EPS)
    # Theirs is in bfloat16, of eight bits.
    assert torch.allclose(orthogonal(matrix, *given), theirs(matrix, *given).float(), atol=0.05)
