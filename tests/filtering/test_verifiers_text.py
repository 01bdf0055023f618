"""The verifiers of plain answers: exact text, countdown, knights and knaves; both directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from filtering.countdown import evaluated
from filtering.exact import comparable
from filtering.verifiers import VERIFIERS
from pipeline.records import State, Verdict

Grade = Callable[..., Verdict]


def test_every_verifier_has_a_name() -> None:
    assert set(VERIFIERS) == {"math", "exact", "countdown", "knights", "tests"}


@pytest.mark.parametrize("verifier", ["exact", "countdown", "knights", "tests"])
def test_a_thought_that_never_closed_is_undecided(verdict: Grade, verifier: str) -> None:
    found = verdict(verifier, "Bob", None)
    assert (found.state, found.decided_by) == (State.UNDECIDED, "extraction")
    assert found.why == "the thought never closed: no answer"


@pytest.mark.parametrize(
    ("reference", "answer", "state", "why"),
    [
        ("Bob", "Bob", "correct", "equal text (whole answer)"),
        ("Bob", "  **bob**.\n", "correct", "equal text (whole answer)"),
        ("Bob", "Ｂｏｂ。", "correct", "equal text (whole answer)"),
        ("a  b", "A b!", "correct", "equal text (whole answer)"),
        ("yes\nno", "Yes no", "correct", "equal text (whole answer)"),
        ("Bob", "The answer is Bob.", "correct", "equal text (phrase)"),
        ("Bob", "Let us see.\n\n**Answer:** Bob, because he lies. Ann does not.", "correct", "equal text (phrase)"),
        ("鲍勃", "我们来看。\n答案是：鲍勃。", "correct", "equal text (phrase)"),
        ("Bob", "So \\boxed{\\text{Bob}} it is", "correct", "equal text (boxed)"),
        ("St. Ives", "The answer is St. Ives.", "correct", "equal text (phrase)"),
        ("Some Like It So Hot", "The answer is Some Like It So Hot.", "correct", "equal text (phrase)"),
        ("Bob", "The answer is Bob.\nThe answer is correct.", "correct", "equal text (phrase)"),
        ("?", "?", "correct", "equal text (whole answer)"),
        ("Bob", "Ann", "wrong", "'Ann' is not 'Bob' (whole answer)"),
        ("Bob", "The answer is Ann.", "wrong", "'Ann' is not 'Bob' (phrase)"),
        ("Bob", "The answer is not Bob.", "wrong", "'not Bob' is not 'Bob' (phrase)"),
        ("Bob", "The answer is Bob.\nNo, the answer is Ann.", "wrong", "'Ann' is not 'Bob' (phrase)"),
        ("Bob", "\\boxed{Ann} and the answer is Bob", "wrong", "'Ann' is not 'Bob' (boxed)"),
        ("7", "7 or 8", "wrong", "'7 or 8' is not '7' (whole answer)"),
        ("C++", "C", "wrong", "'C' is not 'C++' (whole answer)"),
    ],
)
def test_exact(verdict: Grade, reference: str, answer: str, state: str, why: str) -> None:
    found = verdict("exact", reference, answer)
    assert (found.state, found.decided_by, found.why) == (state, "exact", why)


@pytest.mark.parametrize(
    ("reference", "answer", "finish", "by", "why"),
    [
        ("7", "First 3.\nThen 4 more make 7", "stop", "extraction", "no final answer found"),
        ("7", "word " * 99, "stop", "extraction", "no final answer found"),
        ("Bob", "Bo", "length", "extraction", "cut off before a final answer"),
        (" ", "Bob", "stop", "reference", "the problem has no reference"),
    ],
)
def test_exact_in_doubt(verdict: Grade, reference: str, answer: str, finish: str, by: str, why: str) -> None:
    found = verdict("exact", reference, answer, finish)
    assert (found.state, found.decided_by, found.why) == (State.UNDECIDED, by, why)


def test_what_is_compared_keeps_what_matters() -> None:
    assert comparable("  'It’s  FINE!' ") == "it’s fine"
    assert comparable("-5.5") == "-5.5" != comparable("5.5")


TASK = '{"numbers": [3, 5, 2], "target": 13}'


@pytest.mark.parametrize(
    ("answer", "state", "why"),
    [
        ("The answer is 3 * 5 - 2.", "correct", "makes 13 of 13"),
        ("The answer is (3 * 5) - 2 = 13.", "correct", "makes 13 of 13"),
        ("The answer is $3 \\times 5 - 2 = 13$", "correct", "makes 13 of 13"),
        ("\\boxed{3 \\cdot 5 - 2}", "correct", "makes 13 of 13"),
        ("最终答案：5×3−2", "correct", "makes 13 of 13"),
        ("I tried.\n3 + 5 = 8\n3 * 5 - 2 = 15 - 2 = 13\nDone.", "correct", "makes 13 of 13"),
        ("Expression: **13 = 3 x 5 - 2**", "correct", "makes 13 of 13"),
        ("So we see:\n- 5 * 3 - 2 = 13, as asked.", "correct", "makes 13 of 13"),
        ("The answer is -2 + 5 * 3", "correct", "makes 13 of 13"),
        ("The answer is 3 + 5 + 2", "wrong", "makes 10 of 13"),
        ("The answer is 3 + 5 + 5", "wrong", "uses 3, 5, 5, not 2, 3, 5"),
        ("The answer is 15 - 2 = 13", "wrong", "uses 2, 15, not 2, 3, 5"),
        ("The answer is 3 * 5 - 2 + 3 - 3", "wrong", "uses 2, 3, 3, 3, 5, not 2, 3, 5"),
        ("The answer is 35 - 22", "wrong", "uses 22, 35, not 2, 3, 5"),
        ("The answer is 3 + 5 - 2 = 13", "wrong", "the sides of '=' are not equal"),
        ("The answer is 5 / (3 - 2 - 1)", "wrong", "it divides by zero"),
        ("\\boxed{13}", "wrong", "uses 13, not 2, 3, 5"),
    ],
)
def test_countdown(verdict: Grade, answer: str, state: str, why: str) -> None:
    found = verdict("countdown", TASK, answer)
    assert (found.state, found.decided_by, found.why) == (state, "countdown", why)


def test_countdown_is_exact_in_fractions(verdict: Grade) -> None:
    task = '{"numbers": [8, 3, 8, 3], "target": 24}'
    assert verdict("countdown", task, "\\boxed{8 / (3 - 8 / 3)}").state == State.CORRECT
    assert verdict("countdown", task, "\\boxed{\\frac{8}{3 - \\frac{8}{3}}}").state == State.CORRECT


MORE = "cannot read the expression: it holds more than whole numbers, + - * / and parentheses"


@pytest.mark.parametrize(
    ("reference", "answer", "finish", "by", "why"),
    [
        (TASK, "It cannot be done.", "stop", "extraction", "no expression found"),
        (TASK, "3 * 5 -", "stop", "extraction", "cannot read the expression: it is no whole expression"),
        (TASK, "3 * 5 - 2", "length", "extraction", "cut off before a final answer"),
        (TASK, "\\boxed{2 ** 3 + 5}", "stop", "extraction", MORE),
        (TASK, "\\boxed{3² + 5 - 1}", "stop", "extraction", MORE),
        (TASK, "\\boxed{__import__('os').getpid() + 2}", "stop", "extraction", MORE),
        (
            TASK,
            "\\boxed{3 + " + "(" * 150 + "5}",
            "stop",
            "extraction",
            "cannot read the expression: it is no whole expression",
        ),
        (TASK, "\\boxed{" + "1 + " * 99 + "1}", "stop", "extraction", "cannot read the expression: it is too long"),
        ("13", "The answer is 3 * 5 - 2", "stop", "reference", "the reference names no numbers and target"),
        ('{"numbers": [true], "target": 1}', "1 + 1", "stop", "reference", "the reference names no numbers and target"),
        ('{"numbers": 3, "target": 1}', "1 + 1", "stop", "reference", "the reference names no numbers and target"),
    ],
)
def test_countdown_in_doubt(verdict: Grade, reference: str, answer: str, finish: str, by: str, why: str) -> None:
    found = verdict("countdown", reference, answer, finish)
    assert (found.state, found.decided_by, found.why) == (State.UNDECIDED, by, why)


@pytest.mark.parametrize("text", ["", "()", "1 2", "3(5)", "1,2", "07", "+3", "lambda: 3", "3 if 5 else 2", "(1)" * 90])
def test_only_arithmetic_is_read(text: str) -> None:
    assert isinstance(evaluated(text), str)


PEOPLE = "Ann is a knight. Bob is a knave."


@pytest.mark.parametrize(
    ("answer", "state", "why"),
    [
        ("Ann is a knight and Bob is a knave.", "correct", "all 2 are right"),
        (
            "Suppose Ann is a knave. Then no.\n\nSo **Ann** is a **knight**, BOB is a knave.",
            "correct",
            "all 2 are right",
        ),
        (
            "If Bob is a knight, no. The answer is: (1) Ann is a knight\n\n(2) Bob is a knave",
            "correct",
            "all 2 are right",
        ),
        ("Ann is a knave?\n\n\\boxed{\\text{Ann is a knight, Bob is a knave}}", "correct", "all 2 are right"),
        ("Ann is a knight.\n\nBob is a knave.", "correct", "all 2 are right"),
        ("He is a knave. Ann is a knight, Bob is a knave, Cid is a knight.", "correct", "all 2 are right"),
        ("Ann is a knave and Bob is a knight.", "wrong", "Ann is a knight, not a knave"),
        ("Ann and Bob are both knights.", "wrong", "Bob is a knave, not a knight"),
        ("Ann is a knight. Ann is a knave. Bob is a knave.", "wrong", "Ann is called both"),
        ("The answer is that Ann is a knight.", "wrong", "Bob is missing"),
        ("Bob is a knave.", "wrong", "Ann is missing"),
    ],
)
def test_knights(verdict: Grade, answer: str, state: str, why: str) -> None:
    found = verdict("knights", PEOPLE, answer)
    assert (found.state, found.decided_by, found.why) == (state, "knights", why)


@pytest.mark.parametrize(
    ("reference", "answer", "finish", "by", "why"),
    [
        (PEOPLE, "I cannot tell.", "stop", "extraction", "nobody is called a knight or a knave in the end"),
        (PEOPLE, "Cid is a knave.", "stop", "extraction", "nobody is called a knight or a knave in the end"),
        (PEOPLE, "Ann is a knight. Bob", "length", "extraction", "cut off before the end of the answer"),
        ("Ann: knight", "Ann is a knight.", "stop", "reference", "the reference names no knight and no knave"),
    ],
)
def test_knights_in_doubt(verdict: Grade, reference: str, answer: str, finish: str, by: str, why: str) -> None:
    found = verdict("knights", reference, answer, finish)
    assert (found.state, found.decided_by, found.why) == (State.UNDECIDED, by, why)


def test_what_was_read_is_kept(verdict: Grade) -> None:
    assert verdict("exact", "Bob", "The answer is Bob.").extracted == "Bob"
    assert verdict("countdown", TASK, "The answer is 3 * 5 - 2.").extracted == "3 * 5 - 2"
    assert verdict("knights", PEOPLE, "Ann is a knight.").extracted == "Ann: knight"
