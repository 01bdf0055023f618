"""The verifier "countdown": an expression that makes the target of the given numbers, each used exactly once.

The reference is JSON: {"numbers": [3, 5, 2], "target": 13}.
"""

from __future__ import annotations

import ast
import json
import re
from fractions import Fraction

from filtering.answers import stated_answer
from filtering.verdicts import judged, undecided
from pipeline.records import Problem, Trace, Verdict

LONGEST = 300
"""Characters of an expression; what is longer is not parsed."""
BY_ZERO = "it divides by zero"
DEEPEST = 8
"""Fractions in fractions that are read."""
SIGNS = str.maketrans("×·⋅∙÷−–（）＋－＊／＝［］[]", "****/--()+-*/=()()")
LATEX = ((r"\\(?:times|cdot|ast)(?![a-z])", "*"), (r"\\div(?![a-z])", "/"), (r"\\(?:left|right|,|;|!|:|\s)", ""))
FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
ARITHMETIC = re.compile(r"-?[\d(][\d\s+\-*/()=]*")
BULLET = re.compile(r"^\s*(?:[-*•>]|\d+[.)])\s+")
CALCULATION = re.compile(r"\d[\s)]*[-+*/×·÷−][\s(]*\d")


def decide_countdown(problem: Problem, trace: Trace) -> Verdict:
    """Return a verdict on the stated expression, else on the last line that calculates."""
    if trace.answer is None:
        return undecided(problem, trace, "extraction", "the thought never closed: no answer")
    text, how = _stated(trace.answer)
    if not text:
        return undecided(problem, trace, "extraction", "no expression found")
    if how == "last line" and trace.finish_reason == "length":
        return undecided(problem, trace, "extraction", "cut off before a final answer")
    task = read_task(problem.reference or "")
    if task is None:
        return undecided(problem, trace, "reference", "the reference names no numbers and target", text)
    numbers, target = task
    values = []
    for side in cleaned(text).split("="):
        found = evaluated(side)
        if found == BY_ZERO:
            return judged(problem, trace, False, "countdown", BY_ZERO, text)
        if isinstance(found, str):
            return undecided(problem, trace, "extraction", f"cannot read the expression: {found}", text)
        values.append(found)
    value, used = max(values, key=lambda side: len(side[1]))  # the expression itself; the rest are values of it
    if any(other != value for other, _ in values):
        return judged(problem, trace, False, "countdown", "the sides of '=' are not equal", text)
    if sorted(used) != sorted(numbers):
        return judged(problem, trace, False, "countdown", f"uses {_list(used)}, not {_list(numbers)}", text)
    return judged(problem, trace, value == target, "countdown", f"makes {value} of {target}", text)


def cleaned(text: str) -> str:
    """Return an expression with Python's signs for LaTeX's and Unicode's."""
    for pattern, sign in LATEX:
        text = re.sub(pattern, sign, text)
    text = text.replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "").translate(SIGNS)
    for _ in range(DEEPEST):
        text = FRACTION.sub(r"((\1)/(\2))", text)
    return re.sub(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])", "*", text).replace("$", "").strip(" \t.。`:,")


def evaluated(text: str) -> tuple[Fraction, list[int]] | str:
    """Return an expression's value and the whole numbers in it, or why it has none.

    Whole numbers, + - * / and parentheses only; exact. Nothing is evaluated by Python.
    """
    if len(text) > LONGEST:
        return "it is too long"
    if not re.fullmatch(r"[\d\s+\-*/()]*", text, re.ASCII) or "**" in text or "//" in text:
        return "it holds more than whole numbers, + - * / and parentheses"
    numbers: list[int] = []
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, numbers), numbers
    except ZeroDivisionError:
        return BY_ZERO
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "it is no whole expression"


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            numbers.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, numbers)
        case ast.BinOp(left=left, op=sign, right=right):
            first, second = _value(left, numbers), _value(right, numbers)
            match sign:
                case ast.Add():
                    return first + second
                case ast.Sub():
                    return first - second
                case ast.Mult():
                    return first * second
                case ast.Div():
                    return first / second
    raise ValueError("not plain arithmetic")


def _stated(answer: str) -> tuple[str, str]:
    """The text of the answer's expression and how it was found; empty where there is none."""
    stated = stated_answer(answer)
    if stated and re.search(r"\d", stated[0]) and (stated[1] == "boxed" or CALCULATION.search(cleaned(stated[0]))):
        return stated
    lines = [cleaned(BULLET.sub("", line.replace("**", ""))) for line in answer.splitlines()]
    lines = [line for line in lines if CALCULATION.search(line)]
    # Words may stand around it: "So 3 * 5 - 2 = 13 it is."
    return (max(ARITHMETIC.findall(lines[-1]), key=len).strip(), "last line") if lines else ("", "")


def read_task(reference: str) -> tuple[list[int], int] | None:
    """Return the numbers and the target of a reference, None where it has none."""
    try:
        content = json.loads(reference)
        numbers, target = content["numbers"], content["target"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = isinstance(numbers, list) and numbers and all(type(number) is int for number in [*numbers, target])
    return (numbers, target) if whole else None


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
