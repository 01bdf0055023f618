"""The student's card: README.md beside the weights."""

from __future__ import annotations

from typing import Any

from students.settings import TrainSettings


def student_card(name: str, settings: TrainSettings, training: dict[str, Any]) -> str:
    """Return the card as Markdown: what the student is, what it was trained on, how to run it."""
    rows, tokens = training["rows"], training["tokens"]
    options = "\n".join(f"| `{key}` | {value} |" for key, value in training["options"].items())
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    front.append("tags: [reasoning, distillation, sft]")
    if not settings.base.startswith(("package:", "/", ".", "~")):
        front.append(f"base_model: {settings.base}")
    thought = (
        f"It writes its thought between `{settings.thought_open.strip()}` and `{settings.thought_close.strip()}`, "
        "then the answer."
        if settings.thought_open.strip()
        else "It writes its thought without tags."
    )
    loss = "not logged" if training["final_loss"] is None else f"{training['final_loss']:.4f}"
    return f"""{chr(10).join(front)}
---

# {name}

A student of the base `{settings.base}`, fine-tuned with Retort on reasoning traces of a larger teacher.
{thought}

## Trained on

| | |
|---|---|
| rows | {rows["trained"]} of {rows["in"]} ({rows["over_length"]} over {settings.max_length} tokens left out) |
| tokens in these rows | {tokens["rows"]} ({tokens["labels"]} of them trained) |
| tokens seen in training | {tokens["seen"]} |
| steps, epochs | {training["steps"]}, {training["epochs"]:g} |
| last loss | {loss} |
| seconds | {training["seconds"]} |
| sources | {_counts(training["sources"])} |
| licences of the rows | {_counts(training["licenses"])} |

The base's own licence holds for the weights; see its card.

## How

`{settings.method}` fine-tuning of the assistant's turns (thought, answer and end-of-turn token), chat template
`{settings.chat_template}`, weights in {settings.dtype}, seed {training["seed"]}. The loss log is in `training.json`.

| option | |
|---|---|
{options}

## Run it

```
vllm serve <this folder>
```

Sample at temperature 0.6 and top-p 0.95, without a system prompt.
"""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"
