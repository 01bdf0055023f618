"""Measures a bundled model for its card: what it gets right, how often it gives no answer, which flaws it shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from filtering.rules import RULES
from filtering.verify import grade
from pipeline.records import Problem, State, Trace
from teacher.families import as_problem, exercises
from teacher.families.exercise import FULL, Size
from teacher.nano.corpus import PROMPT
from teacher.thought import split

SEED = 77
THRESHOLDS: dict[str, dict[str, Any]] = {
    "language_mixing": {},
    "repetition": {"ngram": 5, "max_repeats": 3},
    "code_fence": {},
    "long_paragraph": {"max_chars": 400},
    "thought_unclosed": {},
}
"""The rules by which flaws are counted, as recipes/demo.toml sets them."""


@dataclass
class Measured:
    """Counts over the samples of one family."""

    family: str
    samples: int = 0
    states: Counter[str] = field(default_factory=Counter)
    no_answer: int = 0
    tokens: int = 0
    flaws: Counter[str] = field(default_factory=Counter)
    flaws_of_correct: Counter[str] = field(default_factory=Counter)


def measure(
    model: Any,
    tokenizer: Any,
    name: str,
    *,
    size: Size = FULL,
    count: int = 100,
    temperature: float = 0.6,
    top_p: float = 0.95,
    opening: str = "",
    max_tokens: int = 320,
) -> Measured:
    """Return the counts over `count` samples, one of each held-out question of a family; where it has fewer of a size,
    over several of each.

    Sampled by transformers; `opening` is put at the head of the assistant's turn.
    """
    held_out = islice(exercises(name, SEED, held_out=True, size=size), count)
    problems = list(islice(cycle([as_problem(name, exercise) for exercise in held_out]), count))
    traces = _sample(model, tokenizer, problems, temperature, top_p, opening, max_tokens)
    found = Measured(name, samples=len(traces), tokens=sum(trace.completion_tokens for trace in traces))
    pairs = list(zip(problems, traces, strict=True))
    for (problem, trace), verdict in zip(pairs, grade(pairs), strict=True):
        found.states[str(verdict.state)] += 1
        found.no_answer += trace.answer is None or verdict.decided_by == "extraction"
        for rule, settings in THRESHOLDS.items():
            if RULES[rule](problem, trace, **settings):
                found.flaws[rule] += 1
                found.flaws_of_correct[rule] += verdict.state == State.CORRECT
    return found


def _sample(
    model: Any, tokenizer: Any, problems: list[Problem], temperature: float, top_p: float, opening: str, most: int
) -> list[Trace]:
    import torch

    texts = [PROMPT.format(question=problem.messages[-1]["content"]) + opening for problem in problems]
    tokenizer.padding_side = "left"
    given = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        rows = model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=most,
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
        )
    return [
        _trace(tokenizer, problem, row[given["input_ids"].shape[1] :].tolist(), opening, number)
        for number, (problem, row) in enumerate(zip(problems, rows, strict=True))
    ]


def _trace(tokenizer: Any, problem: Problem, ids: list[int], opening: str, number: int) -> Trace:
    whole = tokenizer.eos_token_id in ids
    ids = ids[: ids.index(tokenizer.eos_token_id)] if whole else ids
    text = tokenizer.decode(ids)
    thought, answer = split(text, None, opening)
    return Trace(
        id=f"{problem.id}-{number}",
        problem_id=problem.id,
        sample=0,
        thought=thought,
        answer=answer,
        text=text,
        finish_reason="stop" if whole else "length",
        prompt_tokens=0,
        completion_tokens=len(ids),
        teacher="",
        revision="",
        template="",
        temperature=0.0,
        top_p=1.0,
        top_k=-1,
        max_tokens=0,
        seed=None,
        endpoint="",
        attempts=1,
        started=0.0,
        seconds=0.0,
    )
