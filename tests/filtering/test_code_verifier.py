"""The verifier "tests": right and wrong solutions, hostile ones, and what cannot be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filtering import sandbox
from filtering.deferred import KINDS, Finding, Kind
from filtering.programs import equal, fences, read_tests, run_tests, solution
from filtering.verify import grade
from pipeline.records import State, Verdict

needs_bubblewrap = pytest.mark.skipif(sandbox.available() is not None, reason=f"no sandbox: {sandbox.available()}")
Make = Callable[..., Any]


def reference(*tests: tuple[list[Any], Any], function: str = "f") -> str:
    return json.dumps({"function": function, "tests": [{"args": args, "result": result} for args, result in tests]})


DOUBLE = reference(([2], 4), ([5], 10))
"""f(2) = 4, f(5) = 10."""


def judge(code: str, tests: str = DOUBLE, seconds: float = 2.0) -> tuple[str, str, str]:
    found = run_tests(((code, "fenced", tests), seconds))
    return str(found.state), found.by, found.why


@needs_bubblewrap
@pytest.mark.parametrize(
    ("code", "state", "why"),
    [
        ("def f(x):\n    return 2 * x", "correct", "2 of 2 tests passed"),
        ("import math\nf = lambda x: math.gcd(2 * x, 0)", "correct", "2 of 2 tests passed"),
        (
            "print('hello')\ndef f(x):\n    print(x, 'is', flush=True)\n    return x + x",
            "correct",
            "2 of 2 tests passed",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x).x * 2",
            "correct",
            "2 of 2 tests passed",
        ),
        ("def f(x): return 2 * x\nif __name__ == '__main__':\n    f(input())", "correct", "2 of 2 tests passed"),
        ("def f(x): return x + 2", "wrong", "f(5) = 7, not 10"),
        ("def f(x): return 2.0 * x", "wrong", "f(2) = 4.0, not 4"),
        ("def f(x): return str(2 * x)", "wrong", "f(2) = '4', not 4"),
        ("def f(x): return [2 * x][x]", "wrong", "f(2) raised IndexError: list index out of range"),
        ("def f(x): return {x}", "wrong", "f(2) gave no plain data: TypeError: a set"),
        ("def f(x): yield 2 * x", "wrong", "f(2) gave no plain data: TypeError: a generator"),
        ("def f(x): return {x: 1}", "wrong", "f(2) gave no plain data: TypeError: a dict whose keys are not all str"),
        (
            "def f(x):\n  a = []\n  a.append(a)\n  return a",
            "wrong",
            "f(2) gave no plain data: ValueError: nested too deep",
        ),
        ("def f(x, y): return x", "wrong", "f(2) raised TypeError: f() missing 1 required positional argument: 'y'"),
        ("def f(x): return f(x)", "wrong", "f(2) raised RecursionError: maximum recursion depth exceeded"),
        ("def g(x): return 2 * x", "wrong", "defines no f"),
        ("def f(x) return x", "wrong", "does not compile: SyntaxError: expected ':' (<solution>, line 1)"),
        ("1 / 0", "wrong", "raised ZeroDivisionError: division by zero"),
        ("import numpy\ndef f(x): return 2 * x", "wrong", "raised ModuleNotFoundError: No module named 'numpy'"),
        ("raise KeyError('f')", "wrong", "raised KeyError: 'f'"),
        ("f = 4", "wrong", "f(2) raised TypeError: 'int' object is not callable"),
    ],
)
def test_verdicts(code: str, state: str, why: str) -> None:
    assert judge(code) == (state, "tests", why)


@needs_bubblewrap
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os\nos._exit(0)", "ended while it was loaded (status 0)"),
        ("import os\ndef f(x): os._exit(0)", "ended in f(2) (status 0)"),
        ("def f(x):\n  if x == 2: return 4\n  import os; os._exit(0)", "ended in f(5) (status 0)"),
        ("import sys\ndef f(x): sys.exit(0)", "f(2) raised SystemExit: 0"),
        ("import sys\nprint('loaded'); print('= 4'); print('= 10')\nsys.exit()", "raised SystemExit: "),
        ("import os\nos.write(1, b'loaded\\n= 4\\n= 10\\n')\ndef f(x): return 0", "f(2) = 0, not 4"),
        # Forged lines are the solution's own output: without the results they do not help.
        ("import os\nos.write(3, b'loaded\\n= 1\\n= 1\\n')\nos._exit(0)", "f(2) = 1, not 4"),
        ("import os\nos.write(3, b'loaded\\n= 4\\n')\nos._exit(0)", "ended in f(5) (status 0)"),
        (
            "import os\nos.write(3, b'loaded\\nall correct\\n')\nos._exit(0)",
            "f(2): what it wrote is no result: all correct",
        ),
        (
            "import os\nos.write(3, b'loaded\\n= \\xff[[[\\n')\nos._exit(0)",
            "f(2): what it wrote is no result: = \ufffd[[[",
        ),
        ("import os\nos.write(3, b'loaded\\n= ' + b'[' * 100000 + b'\\n')\nos._exit(0)", None),
        ("import os\nwhile True: os.write(3, b'= 4\\n' * 9999)", "f(5) = 4, not 10"),
        (
            "import os\nos.write(3, b'loaded\\n= 4\\n= 10\\n= 4\\n')\nos._exit(0)",
            "wrote more results than the 2 calls gave",
        ),
        # Two processes write to one channel: they race for which mistake is seen first, not for being wrong.
        ("import os\nos.fork()\ndef f(x): return os.fork() and 0", None),
        ("import json, marshal\njson.dumps = json.loads = lambda *a: 4\ndef f(x): return 0", "f(2) = 0, not 4"),
        (
            "class N(int):\n  __eq__ = lambda s, o: True\ndef f(x): return N(0)",
            "f(2) gave no plain data: TypeError: a N",
        ),
        (
            "class E(Exception):\n  __str__ = lambda s: 1 / 0\ndef f(x): raise E",
            "f(2) raised an error that cannot be printed",
        ),
        ("class E(Exception): pass\ndef f(x): raise E('= 4\\n= 10\\n')", "f(2) raised E: = 4\\n= 10\\n"),
        ("def f(x): return open('/work/secret').read()", "f(2) raised FileNotFoundError: "),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "ended in f(2) (status 139)"),
        ("def f(x): return bytearray(10**10)", "f(2) raised MemoryError: "),
        ("def f(x): return 'x' * 5 * 2**20", "gave more than 4194304 bytes"),
    ],
)
def test_hostile_solutions_are_wrong(code: str, why: str | None) -> None:
    state, by, found = judge(code)
    assert (state, by) == ("wrong", "tests")
    assert why is None or found.startswith(why)


@needs_bubblewrap
def test_no_expected_result_is_within_a_solutions_reach() -> None:
    search = """
import gc, sys
def f(x):
    seen = []
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(frame.f_globals)]
        frame = frame.f_back
    seen += [repr(o)[:10**6] for o in gc.get_objects()]
    return "".join(["7"] * 9) in "".join(seen)
"""
    assert judge(search, reference(([1], 777777777))) == ("wrong", "tests", "f(1) = False, not 777777777")


@needs_bubblewrap
def test_a_program_without_end_is_run_again_alone_and_then_wrong(monkeypatch: pytest.MonkeyPatch, pair: Make) -> None:
    found = run_tests((("def f(x):\n    while x: pass", "fenced", DOUBLE), 1.0))
    assert (found.state, found.why, found.again) == (State.WRONG, "out of time after 1 s in f(2)", True)
    endless = pair("tests", DOUBLE, "```python\nimport time\ndef f(x): time.sleep(600)\n```")
    right = pair("tests", DOUBLE, "```python\ndef f(x): return x + x\n```")
    verdicts = list(grade([endless, right, endless], workers=2, timeout_s=0.5))
    assert [(one.state, one.why) for one in verdicts] == [
        ("wrong", "out of time after 0.5 s in f(2)"),
        ("correct", "2 of 2 tests passed"),
        ("wrong", "out of time after 0.5 s in f(2)"),
    ]


@needs_bubblewrap
def test_a_wrong_result_before_the_time_runs_out_decides() -> None:
    code = "def f(x):\n    if x == 2: return 0\n    while True: pass"
    assert judge(code, seconds=1.0) == ("wrong", "tests", "f(2) = 0, not 4")


@needs_bubblewrap
def test_values_survive_the_way_there_and_back() -> None:
    value = [None, True, -3, 10**30, 1.5, 1e300, 'é\n\u2028"\\😀', [], {}, {"a": [{"b": ()}]}]
    kept = json.loads(json.dumps(value))
    assert judge("def f(x): return x", reference(([value], kept)))[0] == "correct"
    assert judge("def f(x): return (x, float('inf'))", reference(([1], [1, float("inf")])))[0] == "correct"


@needs_bubblewrap
def test_each_call_gets_arguments_of_its_own_and_order_is_kept() -> None:
    tests = reference(*(([[n]], [n, 0]) for n in range(50)))
    assert judge("def f(x):\n    x.append(0)\n    return x", tests) == ("correct", "tests", "50 of 50 tests passed")


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        (True, 1, False),
        (1, 1.0, False),
        (0, False, False),
        (None, False, False),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (0.0, 1e-15, False),
        (float("nan"), float("nan"), True),
        ([1, [2]], [1, [2]], True),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
    ],
)
def test_types_are_exact(found: Any, expected: Any, same: bool) -> None:
    assert equal(found, expected) is same


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            "Use:\n```python\ndef f(x): return 1\n```\nor\n```python\ndef f(x): return 2\n```\nDone.",
            "def f(x): return 2\n",
        ),
        ("```python\ndef f(x): return 1\n```\nTry it:\n```python\nprint(f(2))\n```", "def f(x): return 1\n"),
        ("```\ndef f(x): return 1\n```\n```\n2\n```", "def f(x): return 1\n"),
        ("```py\nf = abs\n```", "f = abs\n"),
        ("1. So:\n   ```Python\n   x\n   ```", "   x\n"),
    ],
)
def test_code_is_read_from_fences(answer: str, code: str) -> None:
    assert solution(answer, "f") == (code, True)


def test_a_fence_without_end_is_none() -> None:
    assert fences("```python\n" * 30_000) == []
    assert fences("```python\nf = 1\n```python\nf = 2\n```\n```\nf") == [("python", "f = 2\n")]


def test_code_without_a_fence_starts_at_def() -> None:
    assert solution("Sure:\ndef f(x):\n    return x", "f") == ("def f(x):\n    return x", False)
    assert solution("```bash\nls\n```", "f") is None


@pytest.mark.parametrize(
    ("tests", "answer", "finish", "by", "why"),
    [
        (DOUBLE, None, "stop", "extraction", "the thought never closed: no answer"),
        (DOUBLE, "It is 7.", "stop", "extraction", "no Python code found"),
        (DOUBLE, "```python\ndef f(x):\n    retu", "length", "extraction", "cut off before the end of the code"),
        (None, "def f(): 1", "stop", "reference", "the problem has no reference"),
        ("7", "def f(): 1", "stop", "reference", "the reference holds no tests: it has no 'function'"),
        (
            "{",
            "def f(): 1",
            "stop",
            "reference",
            "the reference holds no tests: it is no JSON (Expecting property name",
        ),
    ],
)
def test_doubts_are_undecided(verdict: Make, tests: str, answer: str, finish: str, by: str, why: str) -> None:
    found = verdict("tests", tests, answer, finish)
    assert (found.state, found.decided_by) == (State.UNDECIDED, by)
    assert found.why.startswith(why)


@needs_bubblewrap
def test_prose_after_unfenced_code_is_undecided(verdict: Make) -> None:
    found = verdict("tests", DOUBLE, "def f(x):\n    return 2 * x\n\nThis doubles it.")
    assert (found.state, found.decided_by) == (State.UNDECIDED, "extraction")
    assert found.why == "no fenced code, and the text from 'def' on is no Python"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"function": "os.system", "tests": [{"args": [], "result": 1}]}', "its 'function' is no name"),
        ('{"function": "f", "tests": []}', "it has no 'tests'"),
        ('{"function": "f", "tests": [{"args": 2, "result": 1}]}', "a test lacks 'args' or 'result'"),
        ('{"function": "f", "tests": [{"args": [2]}]}', "a test lacks 'args' or 'result'"),
    ],
)
def test_a_reference_that_is_none_says_why(content: str, why: str) -> None:
    assert read_tests(content) == why


def test_without_bubblewrap_the_verdict_says_not_run(
    verdict: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found: Verdict = verdict("tests", DOUBLE, "```python\ndef f(x): return 2 * x\n```")
    assert (found.state, found.decided_by) == (State.UNDECIDED, "sandbox")
    assert found.why == "not run: bubblewrap is not installed (on Debian, sudo apt-get install bubblewrap)"


def count_runs(work: tuple[tuple[str, str, str], float]) -> Finding:
    """Stands in for the sandbox: writes a line a run; a code "again" asks for one more."""
    code, _, place = work[0]
    runs = Path(json.loads(place)["function"] + ".runs")
    with runs.open("a") as file:
        file.write(code)
    return Finding(State.WRONG, "tests", code, again="again" in code)


def test_equal_work_is_done_once_and_order_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: Make) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(KINDS, "tests", Kind(f"{__name__}:count_runs", "sandbox", spare_s=60))
    answers = [f"def f(): {n}\n" for n in (1, 2, 1, 3, 2, 1)] + ["def f(): again"]
    pairs = [pair("tests", DOUBLE, answer) for answer in answers] + [pair("math", "7", "7")]
    assert [one.why for one in grade([*pairs, *pairs], workers=1)] == [*answers, "equal text (last number)"] * 2
    assert Path("f.runs").read_text() == "".join([*dict.fromkeys(answers), "def f(): again"])


def test_work_that_gives_no_finding_is_not_run(monkeypatch: pytest.MonkeyPatch, pair: Make) -> None:
    monkeypatch.setitem(KINDS, "tests", Kind(f"{__name__}:no_such", "sandbox", trouble="not run: {}"))
    (found,) = grade([pair("tests", DOUBLE, "def f(): 1")], workers=1)
    assert (found.state, found.decided_by, found.why) == (State.UNDECIDED, "sandbox", "not run: the worker crashed")
