"""The verifier "tests": a Python function, run in the sandbox on the reference's tests.

The reference is JSON: {"function": "f", "tests": [{"args": [2], "result": 7}, ...]}. The solution gets the
arguments and never the results; what its function returns leaves the sandbox as plain JSON and is compared
here, by exact types (True is not 1, 1 is not 1.0), decimals within `TOLERANCE`. A tuple counts as a list, for
JSON has no tuples.
"""

from __future__ import annotations

import functools
import json
import marshal
import math
import re
from pathlib import Path
from typing import Any

from filtering import sandbox
from filtering.deferred import Deferred, Finding
from filtering.verdicts import SANDBOX, undecided
from filtering.workers import Failure
from pipeline.records import Problem, State, Trace, Verdict

TOLERANCE = 1e-9
"""Relative, for floats: the order of a sum is no mistake."""
RUNNER = Path(__file__).with_name("runner.py")
FENCE = re.compile(r"[ \t]*```[ \t]*(?P<language>\w*)")
DEF = re.compile(r"^(?:async )?def ", re.MULTILINE)
SHOWN = 80
"""Characters of a call or a value that a reason shows."""


def decide_tests(problem: Problem, trace: Trace) -> Verdict | Deferred:
    """Return the solution and its tests for the sandbox, or an undecided verdict where one of them is missing."""
    if trace.answer is None:
        return undecided(problem, trace, "extraction", "the thought never closed: no answer")
    tests = read_tests(problem.reference) if problem.reference and problem.reference.strip() else "none"
    found = solution(trace.answer, tests[0] if isinstance(tests, tuple) else "")
    if found is None:
        return undecided(problem, trace, "extraction", "no Python code found")
    code, fenced = found
    if not fenced and trace.finish_reason == "length":
        return undecided(problem, trace, "extraction", "cut off before the end of the code")
    if tests == "none":
        return undecided(problem, trace, "reference", "the problem has no reference", code)
    if isinstance(tests, str):
        return undecided(problem, trace, "reference", f"the reference holds no tests: {tests}", code)
    return Deferred("tests", (code, "fenced" if fenced else "", problem.reference or ""), code)


def solution(answer: str, function: str) -> tuple[str, bool] | None:
    """Return the code in an answer and whether it stood in a fence, or None where there is none.

    The last fenced block of Python that defines `function` (an example of its use may follow it), else the
    last fenced block of Python, else the text from the first line that starts with "def " on.
    """
    blocks = [(language, code) for language, code in fences(answer) if language in ("python", "python3", "py", "")]
    named = [code for language, code in blocks if language] or [code for _, code in blocks if DEF.search(code)]
    if named:
        defining = [
            code for code in named if re.search(rf"^(?:async )?def {re.escape(function)}\b", code, re.MULTILINE)
        ]
        return (defining or named)[-1], True
    if found := DEF.search(answer):
        return answer[found.start() :], False
    return None


def fences(text: str) -> list[tuple[str, str]]:
    """Return the language (lower case, "" where none stands) and the content of each closed fence, in order.

    By lines, not by one pattern: a model that repeats the fence without end must not cost its square in time.
    """
    blocks: list[tuple[str, str]] = []
    inside: list[str] | None = None
    language = ""
    for line in text.splitlines(keepends=True):
        found = FENCE.match(line)
        if found and inside is not None and not line.strip(" \t\r\n`"):
            blocks.append((language, "".join(inside)))
            inside = None
        elif found and (inside is None or found["language"]):
            inside, language = [], found["language"].lower()
        elif inside is not None:
            inside.append(line)
    return blocks


@functools.lru_cache(maxsize=1000)
def read_tests(reference: str) -> tuple[str, list[list[Any]], list[Any]] | str:
    """Return a reference's function, lists of arguments and results, or what is wrong with it."""
    try:
        content = json.loads(reference)
    except (ValueError, RecursionError) as error:
        return f"it is no JSON ({error})"
    if not isinstance(content, dict) or not isinstance(content.get("function"), str):
        return "it has no 'function'"
    if not content["function"].isidentifier():
        return "its 'function' is no name"
    tests = content.get("tests")
    if not isinstance(tests, list) or not tests:
        return "it has no 'tests'"
    if not all(isinstance(test, dict) and isinstance(test.get("args"), list) and "result" in test for test in tests):
        return "a test lacks 'args' or 'result'"
    return content["function"], [test["args"] for test in tests], [test["result"] for test in tests]


def run_tests(work: tuple[tuple[str, str, str], float]) -> Finding:
    """Run a solution on a reference's tests and compare: the worker's side of the verifier."""
    (code, fenced, reference), seconds = work
    tests = read_tests(reference)
    assert isinstance(tests, tuple)
    name, calls, expected = tests
    limits = sandbox.Limits(seconds=seconds, wall_seconds=2 * seconds + 1)
    run = sandbox.run(_runner(), marshal.dumps((code, name, calls)), limits)
    if isinstance(run, Failure):
        return Finding(State.UNDECIDED, SANDBOX, f"not run: {run.why}")
    lines = run.output.decode("ascii", "replace").split("\n")[:-1]  # what follows the last line's end was cut short
    first = lines[0] if lines else ""
    if first.startswith("~ "):
        if not fenced:
            return Finding(State.UNDECIDED, "extraction", "no fenced code, and the text from 'def' on is no Python")
        return Finding(State.WRONG, "tests", f"does not compile: {first[2:]}")
    if first.startswith("! "):
        return Finding(State.WRONG, "tests", first[2:])
    shown = [_cut(f"{name}({', '.join(map(repr, arguments))})") for arguments in calls]
    for call, wanted, line in zip(shown, expected, lines[1:], strict=False):
        if why := _mistake(line, wanted):
            return Finding(State.WRONG, "tests", call + why)
    if len(lines) - 1 > len(calls):
        return Finding(State.WRONG, "tests", f"wrote more results than the {len(calls)} calls gave")
    if run.cut == "output":
        return Finding(State.WRONG, "tests", f"gave more than {limits.output_bytes} bytes")
    if len(lines) - 1 == len(calls) and not run.cut:
        return Finding(State.CORRECT, "tests", f"{len(calls)} of {len(calls)} tests passed")
    place = f"in {shown[min(len(lines) - 1, len(calls) - 1)]}" if lines else "while it was loaded"
    if run.cut == "time":
        return Finding(State.WRONG, "tests", f"out of time after {seconds:g} s {place}", again=True)
    # The kernel kills when the machine is out of memory too, which is not the solution's fault at once.
    return Finding(State.WRONG, "tests", f"ended {place} (status {run.status})", again=run.status == sandbox.KILLED)


def equal(found: Any, expected: Any) -> bool:
    """Whether two values of JSON are equal, types included; floats within `TOLERANCE`."""
    if type(found) is not type(expected):
        return False
    if isinstance(found, float):
        both_nan = math.isnan(found) and math.isnan(expected)
        return both_nan or math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(equal, found, expected))
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(equal(found[key], expected[key]) for key in found)
    return bool(found == expected)


def _mistake(line: str, wanted: Any) -> str:
    """What is wrong with a call's line, to stand behind the call; "" where nothing is."""
    if line.startswith("! "):
        return f" {line[2:]}"
    try:
        if not line.startswith("= "):
            raise ValueError
        found = json.loads(line[2:])
    except (ValueError, RecursionError):
        return f": what it wrote is no result: {_cut(line)}"
    return "" if equal(found, wanted) else f" = {_cut(repr(found))}, not {_cut(repr(wanted))}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


@functools.cache
def _runner() -> str:
    return RUNNER.read_text(encoding="utf-8")
