"""Verifiers by name: functions from a problem and a trace to a verdict, or to what is left for a killable process.

*Undecided* stands for every doubt: nothing to read an answer from, no reference, out of time, trouble of
ours. It is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from filtering.countdown import decide_countdown
from filtering.deferred import Deferred
from filtering.exact import decide_exact
from filtering.knights import decide_knights
from filtering.mathematics import decide_math
from filtering.programs import decide_tests
from pipeline.records import Problem, Trace, Verdict

VERSION = 2
"""Part of the stage's settings: raised with any change of verdicts, so that finished runs verify again."""

VERIFIERS: dict[str, Callable[[Problem, Trace], Verdict | Deferred]] = {
    "math": decide_math,
    "exact": decide_exact,
    "countdown": decide_countdown,
    "knights": decide_knights,
    "tests": decide_tests,
}
