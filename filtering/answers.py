"""Reading the final answer out of a response, and numbers out of answers."""

from __future__ import annotations

import re
from fractions import Fraction

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
PHRASE = re.compile(
    r"(?:(?:the|my|our|final|correct)\s+(?:final\s+|correct\s+)?answer\s*(?:is|are|=|:)|answer\s*:|####"
    r"|(?:最终)?答案\s*(?:是|为|:|：))[ \t]*\**[ \t]*:?[ \t]*(?P<answer>[^\n]+)",
    re.IGNORECASE,
)
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d{1,3})?")
SENTENCE_END = re.compile(r"(?<=[^\s.\d])[.!?;](?:\s|$)|(?<=\d)[.!?;](?:\s|$)|[。！？；]")


def boxed_answers(text: str) -> list[str]:
    """Return the contents of all whole \\boxed{...} in order, braces balanced."""
    found = []
    for start in BOXED.finditer(text):
        depth = 1
        for place in range(start.end(), len(text)):
            character = text[place]
            if character in "{}" and text[place - 1] != "\\":
                depth += 1 if character == "{" else -1
                if depth == 0:
                    found.append(text[start.end() : place].strip())
                    break
    return found


def final_answer(text: str) -> tuple[str, str] | None:
    """Return (answer, how) from a response's text after the thought, or None where it states none.

    In order: the last \\boxed, the last explicit final-answer phrase (English or Chinese), the last number.
    """
    if boxes := boxed_answers(text):
        return boxes[-1], "boxed"
    if phrases := [found["answer"] for found in PHRASE.finditer(text)]:
        answer = SENTENCE_END.split(phrases[-1].strip(), maxsplit=1)[0].strip(" *")
        if answer:
            return answer, "phrase"
    if numbers := [found[0] for found in NUMBER.finditer(text) if found[0]]:
        return numbers[-1], "last number"
    return None


def normalised_answer(text: str) -> str:
    """Return an answer without what does not change its meaning: dollar signs, spacing, text wrappers, final stop."""
    text = text.strip().strip("$").strip()
    text = text.removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]")
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = text.replace("\\left", "").replace("\\right", "").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"\\[,;:! ]|~", " ", text).replace("\\$", "$").replace("\\%", "%")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".").strip()


def as_number(text: str) -> Fraction | None:
    """Return an answer's number, where it is one: an integer, decimal, fraction, or one number with a unit.

    Percent signs and units are left aside ("18 dollars" and "$18" are 18). None where the text is not
    plainly one number; formulas are never evaluated here.
    """
    text = normalised_answer(text).replace("$", "").replace("−", "-")
    if found := re.fullmatch(r"(-?)\\frac\s*\{\s*(-?\d{1,40})\s*\}\s*\{\s*(-?\d{1,40})\s*\}", text):
        return None if int(found[3]) == 0 else Fraction(int(found[2]), int(found[3])) * (-1 if found[1] else 1)
    if found := re.fullmatch(r"(-?\d{1,40})\s*/\s*(\d{1,40})", text):
        return None if int(found[2]) == 0 else Fraction(int(found[1]), int(found[2]))
    numbers = [found for found in NUMBER.finditer(text) if found[0]]
    if len(numbers) != 1 or len(numbers[0][0]) > 60:
        return None
    rest = text[: numbers[0].start()] + " " + text[numbers[0].end() :]
    # Anything beside the number must be words or a unit sign; operators and commands are formulas.
    if not re.fullmatch(r"[^\W\d_]*(?:[\s%°€£¥.]+[^\W\d_]*)*", rest):
        return None
    try:
        return Fraction(numbers[0][0].replace(",", ""))
    except ValueError:
        return None
