"""Reading answers and numbers, and the verdicts that follow: both directions, and the libraries' traps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filtering.answers import as_number, boxed_answers, final_answer, normalised_answer
from filtering.verify import grade
from pipeline.records import Problem, State, Trace, Verdict


def pair(reference: str | None, answer: str | None, verifier: str = "math") -> tuple[Problem, Trace]:
    problem = Problem.of(
        [{"role": "user", "content": "q"}],
        domain="math",
        source="s",
        license="MIT",
        reference=reference,
        verifier=verifier,
    )
    row = dict.fromkeys(Trace.SCHEMA.names)
    trace = Trace.from_dict(
        {**row, "id": "t", "problem_id": problem.id, "thought": "so", "answer": answer, "text": answer or ""}
    )
    return problem, trace


def verdict(reference: str | None, answer: str | None, **rest: str) -> Verdict:
    (found,) = grade([pair(reference, answer, **rest)], workers=1)
    return found


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("first \\boxed{1}, no: \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\text{a } {b}} and the answer is 7", "\\text{a } {b}"),
        ("The answer is 20.", "20"),
        ("The answer is 2.5. I checked it.", "2.5"),
        ("The answer is 1,800 dollars. Next we could ask for 5 more.", "1,800 dollars"),
        ("**Final Answer:** 12", "12"),
        ("The final answer is: **12**.", "12"),
        ("#### 42", "42"),
        ("答案是 12。", "12"),
        ("最终答案：-3", "-3"),
        ("There are 7 cats, so 8 dogs", "8"),
        ("The answer is:\n\n18", "18"),
        ("The final answer is:\n**18**", "18"),
        ("所以答案是：18", "18"),
        ("The answer is 7.\n\n#### Note", "7"),
        ("The answer is 18.\nThe answer is correct.", "18"),
        ("The answer is 18, since 20 - 2 = 18.", "18"),
        ("It costs from 10-18", "18"),
    ],
)
def test_the_final_answer_is_read(text: str, answer: str) -> None:
    found = final_answer(text)
    assert found is not None
    assert found[0] == answer


def test_no_answer_is_none() -> None:
    assert final_answer("I cannot say.") is None
    assert boxed_answers("\\boxed{never closed") == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", Fraction(18)),
        ("$1,800.50", Fraction(3601, 2)),
        ("-7.", Fraction(-7)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("18 dollars", Fraction(18)),
        (".5", Fraction(1, 2)),
        ("1e5", Fraction(100000)),
        ("2^{10}", None),
        ("x = 3", None),
        ("2 and 3", None),
        ("1/0", None),
        ("9" * 70, None),
        ("3 1/2", Fraction(7, 2)),
        ("18 (eighteen)", Fraction(18)),
        ("18 dollars/day", Fraction(18)),
        ("12cm", Fraction(12)),
        *((text, None) for text in ("5x", "2i", "3π", "sqrt 2", "not 18", "minus 5", "3 million", "2 dozen")),
        ("", None),
    ],
)
def test_numbers_are_read_and_formulas_are_not(text: str, number: Fraction | None) -> None:
    assert as_number(text) == number


@pytest.mark.parametrize(
    ("reference", "answer", "state", "by"),
    [
        ("18", "The answer is \\boxed{18}.", State.CORRECT, "exact"),
        ("1800", "The answer is $1,800.", State.CORRECT, "exact"),
        ("18", "The answer is 18.00 dollars.", State.CORRECT, "numeric"),
        ("0.5", "\\boxed{\\frac{1}{2}}", State.CORRECT, "numeric"),
        ("18", "The answer is 19.", State.WRONG, "numeric"),
        ("18", "The answer is -18.", State.WRONG, "numeric"),
        ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}", State.CORRECT, "symbolic"),
        ("2\\sqrt{3}", "\\boxed{\\sqrt{13}}", State.WRONG, "symbolic"),
        ("(1,2)", "\\boxed{(2,1)}", State.WRONG, "symbolic"),
        ("5", "\\boxed{5x}", State.WRONG, "symbolic"),
        ("2i", "\\boxed{2}", State.WRONG, "symbolic"),
        ("10000000", "\\boxed{10000001}", State.WRONG, "numeric"),
        ("18", "The answer is not 18.", State.UNDECIDED, "text"),
        ("3000000", "The answer is 3 million.", State.UNDECIDED, "text"),
        ("Monday", "The answer is Monday.", State.CORRECT, "exact"),
        ("18", None, State.UNDECIDED, "extraction"),
        ("18", "I cannot say.", State.UNDECIDED, "extraction"),
        (None, "The answer is 18.", State.UNDECIDED, "reference"),
    ],
)
def test_verdicts(reference: str | None, answer: str | None, state: State, by: str) -> None:
    found = verdict(reference, answer)
    assert (found.state, found.decided_by) == (state, by), found.why


def test_a_power_tower_runs_out_of_time_and_is_undecided_not_wrong() -> None:
    pairs = [
        pair("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"),
        pair("\\sqrt{2}", "\\boxed{9^{9^{9^9}}}"),
        pair("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"),
    ]
    before, tower, after = grade(pairs, workers=1, timeout_s=3.0)
    assert (before.state, after.state) == (State.CORRECT, State.CORRECT)
    assert tower.state == State.UNDECIDED
    assert tower.why


def test_an_unknown_verifier_is_undecided() -> None:
    found = verdict("1", "1", verifier="none-such")
    assert (found.state, found.why) == (State.UNDECIDED, "no verifier 'none-such'")


def test_order_is_kept_whatever_decides() -> None:
    answers = [f"\\boxed{{\\sqrt{{{n}}}}}" if n % 3 else f"The answer is {n}." for n in range(2, 40)]
    pairs = [pair("\\sqrt{4}" if n % 3 else str(n), answer) for n, answer in enumerate(answers, start=2)]
    found = [verdict.extracted for verdict in grade(pairs, workers=2)]
    assert found == [f"\\sqrt{{{n}}}" if n % 3 else str(n) for n in range(2, 40)]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("\\boxed{}$^_/0123456789.,- \nthe answer is答案：")))
def test_no_text_breaks_the_reading_of_answers(text: str) -> None:
    found = final_answer(text)
    if found is not None:
        normalised_answer(found[0])
        as_number(found[0])


@pytest.mark.parametrize("blank", [" ", "\n", "\t", " *", "\n *"])
def test_a_phrase_before_any_number_of_blanks_is_read_in_no_time(blank: str) -> None:
    # Quadratic, as it once was, a hundred thousand take minutes: the test's own time-out ends it.
    assert final_answer("the answer is" + blank * 300_000) is None
    assert final_answer("the answer is" + blank * 1000 + "12") == ("12", "phrase")
