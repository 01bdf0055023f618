"""Scores against brute force and worked numbers; what is a try and what is not."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics

import pytest

from eval.scoring import (
    Sample,
    consensus,
    mean,
    paired_difference,
    pass_at_k,
    plain,
    question_means,
    score,
    standard_error,
)
from pipeline.records import State


def sample(problem: str, number: int, state: str, extracted: str | None = "1", **rest: object) -> Sample:
    fields = {
        "decided_by": "numeric",
        "thought": True,
        "answer": True,
        "finish_reason": "stop",
        "completion_tokens": 10,
        **rest,
    }
    return Sample(problem, number, State(state), extracted=extracted, **fields)  # type: ignore[arg-type]


def row(samples: list[Sample], questions: list[str], k: int = 1):  # type: ignore[no-untyped-def]
    return score(samples, questions, model="m", role="base", task="gsm8k", domain="math", k=k)


def unanswered(problem: str, number: int, **rest: object) -> Sample:
    return sample(problem, number, "undecided", None, **{"decided_by": "extraction", "answer": False, **rest})


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for n in range(1, 8):
        for c in range(n + 1):
            rights = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(rights, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_undefined_with_too_few_samples():
    assert math.isnan(pass_at_k(3, 1, 4))
    assert math.isnan(pass_at_k(3, 1, 0))


def test_pass_at_k_stays_exact_with_many_samples():
    # HumanEval's 200 samples: the product form of Chen et al. 2021.
    product = 1.0
    for i in range(150 + 1, 200 + 1):
        product *= 1.0 - 100 / i
    assert pass_at_k(200, 50, 100) == pytest.approx(1.0 - product)


def test_standard_error_worked_number():
    # Means 1, 0, 1, 1: mean 0.75, sum of squares 0.75, variance 0.25, se = sqrt(0.25 / 4).
    assert standard_error([1.0, 0.0, 1.0, 1.0]) == 0.25
    assert math.isnan(standard_error([1.0]))
    assert math.isnan(standard_error([]))


def test_standard_error_is_by_question_not_by_sample():
    rng = random.Random(3)
    samples, means = [], []
    for question in range(40):
        states = [rng.random() < 0.6 for _ in range(4)]
        means.append(sum(states) / 4)
        samples += [sample(f"q{question}", i, "correct" if s else "wrong") for i, s in enumerate(states)]
    found = row(samples, [f"q{q}" for q in range(40)], k=4)
    assert found.pass_at_1 == pytest.approx(statistics.mean(means))
    assert found.se == pytest.approx(statistics.stdev(means) / math.sqrt(40))


def test_copies_of_a_sample_do_not_shrink_the_error():
    once = [sample("a", 0, "correct"), sample("b", 0, "wrong"), sample("c", 0, "wrong")]
    copied = [sample(s.problem_id, n, str(s.state)) for s in once for n in range(16)]
    assert row(copied, ["a", "b", "c"], 16).se == pytest.approx(row(once, ["a", "b", "c"]).se)


def test_undecided_is_neither_right_nor_a_try():
    samples = [sample("a", 0, "correct"), sample("a", 1, "undecided", decided_by="symbolic"), sample("b", 0, "wrong")]
    found = row(samples, ["a", "b"], k=2)
    assert question_means(samples) == {"a": 1.0, "b": 0.0}
    assert (found.pass_at_1, found.undecided, found.undecided_samples) == (0.5, 0.0, 1)


def test_a_question_without_a_decided_sample_leaves_the_mean_and_is_counted():
    samples = [sample("a", 0, "correct"), sample("b", 0, "undecided", decided_by="symbolic")]
    found = row(samples, ["a", "b"])
    assert (found.pass_at_1, found.questions, found.undecided) == (1.0, 2, 0.5)


def test_a_question_without_samples_is_undecided():
    assert row([sample("a", 0, "correct")], ["a", "never sampled"]).undecided == 0.5


@pytest.mark.parametrize(
    "fields",
    [
        {"decided_by": "extraction", "answer": True},
        {"decided_by": "extraction", "answer": False},
        {"decided_by": "none", "answer": False},
        {"decided_by": "symbolic", "answer": True, "finish_reason": "length"},
    ],
)
def test_no_answer_is_a_wrong_try(fields: dict[str, object]):
    silent = unanswered("a", 0, **fields)
    assert silent.no_answer
    assert silent.right == 0.0


def test_a_truncated_answer_that_was_found_but_not_compared_is_no_try():
    cut = sample("a", 0, "undecided", "9^{9^9}", decided_by="symbolic", finish_reason="length")
    assert not cut.no_answer
    assert cut.right is None


def test_shares_of_no_answer_and_truncated_are_of_samples():
    samples = [sample("a", 0, "correct", completion_tokens=30), unanswered("b", 0, finish_reason="length")]
    found = row(samples, ["a", "b"])
    assert (found.no_answer, found.truncated, found.mean_tokens, found.pass_at_1) == (0.5, 0.5, 20.0, 0.5)


def test_consensus_is_the_majority():
    group = [sample("a", 0, "wrong", "7"), sample("a", 1, "correct", "8"), sample("a", 2, "correct", " 8 ")]
    assert consensus(group) == 1.0
    assert consensus([*group, sample("a", 3, "wrong", "7"), sample("a", 4, "wrong", "7")]) == 0.0


def test_consensus_splits_ties():
    two = [sample("a", 0, "wrong", "7"), sample("a", 1, "correct", "8")]
    assert consensus(two) == 0.5
    assert consensus([*two, sample("a", 2, "wrong", "9")]) == pytest.approx(1 / 3)


def test_consensus_leaves_out_samples_without_an_answer():
    silent = [unanswered("a", number) for number in range(1, 4)]
    assert consensus([sample("a", 0, "correct", "8"), *silent]) == 1.0
    assert consensus(silent) == 0.0


def test_consensus_is_undefined_where_the_winner_is_undecided():
    assert math.isnan(consensus([sample("a", 0, "undecided", "x", decided_by="symbolic")]))


def test_consensus_of_one_sample_is_pass_at_1():
    samples = [sample("a", 0, "correct"), sample("b", 0, "wrong"), unanswered("c", 0)]
    found = row(samples, ["a", "b", "c"])
    assert found.cons_at_k == found.pass_at_1 == found.pass_at_k == pytest.approx(1 / 3)


def test_undefined_scores_are_null_in_json():
    found = row([], []).to_dict()
    json.dumps(found, allow_nan=False)
    assert [found[key] for key in ("pass_at_1", "se", "cons_at_k", "no_answer", "truncated", "mean_tokens")] == [
        None
    ] * 6
    assert found["reasoning"] is False
    assert row([sample("a", 0, "correct")], ["a"]).to_dict()["se"] is None
    assert plain({"a": math.nan, "b": 1.0, "c": None}) == {"a": None, "b": 1.0, "c": None}
    assert math.isnan(mean([]))


def test_reasoning_is_told_by_the_samples():
    assert row([sample("a", 0, "wrong"), sample("b", 0, "wrong", thought=False)], ["a", "b"]).reasoning
    assert not row([sample("a", 0, "wrong", thought=False)], ["a"]).reasoning


def test_paired_difference_worked_number():
    ours, theirs = {"a": 1.0, "b": 1.0, "c": 0.5, "x": 0.0}, {"a": 1.0, "b": 0.0, "c": 0.0, "y": 1.0}
    found = paired_difference(ours, theirs)
    # Differences 0, 1, 0.5: mean 0.5, variance 0.25, se sqrt(0.25 / 3).
    assert (found.questions, found.difference) == (3, 0.5)
    assert found.se == pytest.approx(math.sqrt(0.25 / 3))
    assert found.words == "within noise"


def test_pairing_takes_out_how_hard_the_questions_are():
    rng = random.Random(5)
    theirs = {str(q): rng.choice([0.0, 0.5]) for q in range(100)}
    ours = {q: value + 0.5 * (rng.random() < 0.4) for q, value in theirs.items()}
    found = paired_difference(ours, theirs)
    unpaired = math.hypot(standard_error(list(ours.values())), standard_error(list(theirs.values())))
    assert found.se < unpaired
    assert found.words == "beyond noise"


def test_a_difference_of_too_few_questions_is_not_judged():
    found = paired_difference({"a": 1.0}, {"a": 0.0})
    assert found.words == "too few questions to tell"
    assert found.to_dict() == {"questions": 1, "difference": 1.0, "se": None, "words": "too few questions to tell"}
    assert paired_difference({"a": 1.0}, {"b": 0.0}).to_dict()["difference"] is None
