"""The thought is found wherever the engine puts it."""

from __future__ import annotations

import pytest

from teacher.thought import split, split_at_final_answer


@pytest.mark.parametrize(
    ("text", "reasoning", "prefill", "expected"),
    [
        ("<think>\na\n</think>\n\nb", None, "", ("a", "b")),
        ("<thought>a</thought>b", None, "", ("a", "b")),
        ("a\n</think>\nb", None, "", ("a", "b")),  # opened by the template
        ("a\n</think>\nb", None, "<think>\n", ("a", "b")),  # opened by us
        ("never closed", None, "<think>\n", ("never closed", None)),
        ("<think>never closed", None, "", ("never closed", None)),
        ("<think></think>b", None, "", ("", "b")),
        ("<think>a</think>", None, "", ("a", "")),
        ("b", "a", "", ("a", "b")),  # the engine's own field
        ("", "a", "", ("a", None)),
        ("plain", None, "", (None, "plain")),
        ("<think>a</think>b <think>c</think>", None, "", ("a", "b <think>c</think>")),
    ],
)
def test_split(text: str, reasoning: str | None, prefill: str, expected: tuple[str | None, str | None]) -> None:
    assert split(text, reasoning, prefill) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = 4\n\nThe answer is 4.", ("2 + 2 = 4", "The answer is 4.")),
        ("2 + 2\n#### 4", ("2 + 2", "#### 4")),
        ("The answer is 4.", (None, "The answer is 4.")),
        ("I cannot say.", (None, "I cannot say.")),
        ("step\nThe answer is 4.\nBut what of 5?", ("step", "The answer is 4.\nBut what of 5?")),
        (
            "To find the answer, we list all.\n#### Step\nThe answer is 4.",
            ("To find the answer, we list all.\n#### Step", "The answer is 4."),
        ),
        ("三加四\n所以答案：7", ("三加四", "所以答案：7")),
    ],
)
def test_split_at_final_answer(text: str, expected: tuple[str | None, str | None]) -> None:
    assert split_at_final_answer(text) == expected


def test_what_was_cut_off_behind_a_tag_of_the_templates_is_all_thought() -> None:
    text = "So 2 + 2 is \\boxed{4}, or is it"
    assert split(text, None) == (None, text)
    assert split(text, None, opened_before=True) == (text, None)
    # Where tags are there, they say what is what.
    assert split("So 4.</think>4", None, opened_before=True) == ("So 4.", "4")
