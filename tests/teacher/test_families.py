"""The families: what they ask can be checked, and what is held out stays out."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from eval.benchmarks import benchmark
from filtering.sandbox import available
from filtering.verify import grade
from pipeline.errors import UserError
from pipeline.records import State, Trace
from teacher.families import BENCHMARKS, FAMILIES, as_problem, exercises, family, is_held_out
from teacher.families.exercise import FULL, SHORT, SINGLE, Hand
from teacher.families.numerals import chinese, english
from teacher.problems import generated, read_problems
from teacher.source_settings import ProblemsSettings


def trace_of(problem_id: str, answer: str) -> Trace:
    return Trace.from_dict(
        dict.fromkeys(Trace.SCHEMA.names)
        | {
            "id": f"t-{problem_id}",
            "problem_id": problem_id,
            "thought": "x",
            "answer": answer,
            "text": answer,
            "finish_reason": "stop",
        }
    )


@pytest.mark.parametrize("size", [SINGLE, SHORT, FULL])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_steady_hand_is_judged_correct_and_a_slipping_one_wrong(name: str, size: int) -> None:
    if name == "functions" and (why := available()):
        pytest.skip(why)
    drawn = list(islice(exercises(name, 5, held_out=False, size=size), 12))
    problems = [as_problem(name, exercise) for exercise in drawn]
    right = [exercise.work(Hand(random.Random(1)))[1] for exercise in drawn]
    pairs = [(problem, trace_of(problem.id, answer)) for problem, answer in zip(problems, right, strict=True)]
    assert {str(verdict.state) for verdict in grade(pairs)} == {"correct"}

    slipped = []
    for exercise, problem, true in zip(drawn, problems, right, strict=True):
        hand = Hand(random.Random(2), slip=1.0)
        _, answer = exercise.work(hand)
        if hand.slips and answer != true:
            slipped.append((problem, trace_of(problem.id, answer)))
    # A second look may reach another right answer there; and who has one step to take cannot lose count.
    if name not in ("countdown", "knights") and (name, size) != ("ordering", SINGLE):
        assert slipped and all(verdict.state == State.WRONG for verdict in grade(slipped))


def test_the_chain_of_a_sum_is_written_out() -> None:
    drawn = next(islice(exercises("sums", 1, held_out=False), 1))
    steps, answer = drawn.work(Hand(random.Random(0)))
    assert drawn.question.startswith("Compute ")
    assert len(steps) == drawn.question.count(" + ") + drawn.question.count(" - ")
    assert all(eval(step.replace("=", "==")) for step in steps)  # our own arithmetic
    assert answer == f"The answer is {drawn.reference}."


@pytest.mark.parametrize("name", FAMILIES)
def test_held_out_and_drawn_are_apart_and_repeatable(name: str) -> None:
    drawn = [exercise.question for exercise in islice(exercises(name, 3, held_out=False), 80)]
    kept_out = [exercise.question for exercise in islice(exercises(name, 3, held_out=True), 30)]
    assert not set(drawn) & set(kept_out)
    assert not any(map(is_held_out, drawn)) and all(map(is_held_out, kept_out))
    assert drawn == [exercise.question for exercise in islice(exercises(name, 3, held_out=False), 80)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_asks_what_is_held_out(name: str) -> None:
    problems = benchmark(name).problems(None)
    assert len(problems) >= 100
    assert all(is_held_out(problem.messages[-1]["content"]) for problem in problems)
    assert {problem.verifier for problem in problems} == {family(name).VERIFIER}
    with pytest.raises(UserError, match=f"the benchmark '{name}' generates its questions and reads no file"):
        benchmark(name).problems(Path("x.jsonl"))


def test_problems_are_generated_by_the_recipes_seed() -> None:
    settings = ProblemsSettings(generate={"sums": 7, "ordering": 5})
    read = read_problems(settings, seed=4)
    first, bad, entered = read.problems, read.bad, read.entered
    assert (len(first), bad, entered) == (12, [], 12)
    assert [problem.id for problem, _ in first] == [
        problem.id for problem, _ in read_problems(settings, seed=4).problems
    ]
    assert {problem.id for problem, _ in first} != {
        problem.id for problem, _ in read_problems(settings, seed=5).problems
    }
    assert [problem.domain for problem, _ in first] == ["math"] * 7 + ["logic"] * 5


def test_a_family_that_is_used_up_says_how_many_it_has() -> None:
    with pytest.raises(UserError, match=r"asks for 5000 of the family 'greetings', which has \d+"):
        generated("greetings", 5000, seed=1)


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="no family 'sum'; did you mean 'sums'?"):
        ProblemsSettings(generate={"sum": 3})


@pytest.mark.parametrize(
    ("number", "words", "signs"),
    [
        (7, "seven", "七"),
        (10, "ten", "十"),
        (19, "nineteen", "十九"),
        (40, "forty", "四十"),
        (105, "one hundred five", "一百零五"),
        (210, "two hundred ten", "二百一十"),
        (300, "three hundred", "三百"),
        (999, "nine hundred ninety nine", "九百九十九"),
    ],
)
def test_number_words(number: int, words: str, signs: str) -> None:
    assert (english(number), chinese(number)) == (words, signs)
