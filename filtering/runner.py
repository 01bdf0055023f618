"""Calls a solution with the tests' arguments; runs inside the sandbox, as the program of `filtering.programs`.

The file is handed over as text: it imports nothing of Retort, and little else, since each import costs time
in each run. It knows no expected result, so nothing that a solution can reach from here helps it: whatever
stands on the channel counts as the solution's own output, forged or not.
"""

import marshal
import os
import sys
from _json import encode_basestring_ascii as quoted

CHANNEL = 3
DEEPEST = 100
"""Levels of lists and dicts in a result."""


def main(data: bytes) -> None:
    """Load a solution, call its function with each list of arguments, and write a line of ASCII for each.

    "~ WHY" it does not compile, "! WHY" it cannot be loaded, or "loaded"; then, for each call, "= JSON" or
    "! WHY".
    """
    os.dup2(1, CHANNEL)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    source, name, calls = marshal.loads(data)
    module = type(sys)("solution")  # not "__main__": what stands under that condition is no part of a solution
    sys.modules["solution"] = module
    try:
        code = compile(source, "<solution>", "exec")
    except BaseException as error:
        return say("~ " + words(error))
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        return say("! raised " + words(error))
    if name not in module.__dict__:
        return say("! defines no " + name)
    say("loaded")
    for arguments in calls:
        say(outcome(module.__dict__[name], arguments))


def outcome(function: object, arguments: list[object]) -> str:
    """Return the line for one call."""
    try:
        result = function(*arguments)  # type: ignore[operator]
    except BaseException as error:
        return "! raised " + words(error)
    try:
        return "= " + plain(result, DEEPEST)
    except BaseException as error:
        return "! gave no plain data: " + words(error)


def say(line: str) -> None:
    """Write a line to the channel."""
    whole = line.encode() + b"\n"
    while whole:
        whole = whole[os.write(CHANNEL, whole) :]


def words(error: BaseException) -> str:
    """Return an error in ASCII on one line; its own text is the solution's and may raise."""
    try:
        return ascii(f"{type(error).__name__}: {error}"[:200])[1:-1]
    except BaseException:
        return "an error that cannot be printed"


def plain(value: object, depth: int) -> str:
    """Return JSON for a value of exactly JSON's types (a tuple is a list).

    Raises:
        TypeError: it is, or holds, something else.
        ValueError: it is nested too deep, or holds an integer of too many digits.
    """
    if depth == 0:
        raise ValueError("nested too deep")
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int or type(value) is float:
        text = repr(value)
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text, text)
    if type(value) is str:
        return quoted(value)
    if type(value) is list or type(value) is tuple:
        return "[" + ",".join([plain(item, depth - 1) for item in value]) + "]"
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise TypeError("a dict whose keys are not all str")
        return "{" + ",".join([quoted(key) + ":" + plain(item, depth - 1) for key, item in value.items()]) + "}"
    raise TypeError(f"a {type(value).__name__}")


if __name__ == "__main__":
    main(globals()["DATA"])
    os._exit(0)  # taking the interpreter down costs time, and threads of the solution may hang
