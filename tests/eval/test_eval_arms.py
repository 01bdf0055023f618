"""Arms compared: the formulas against numbers worked out by hand, what leaves the means, the tables word for word."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from eval.arms import Answered, Arms, compare
from eval.report import result_table
from eval.scoring import Sample, score
from eval.tables import arms_table
from pipeline.manifest import Manifest
from pipeline.records import State
from pipeline.stages import STAGES


def answered(role: str, task: str, means: dict[str, float], domain: str = "math", ran: bool = True) -> Answered:
    arm = role.partition("-")[0]
    return Answered(role, arm, task, domain, means, ran, no_answer=0.25, mean_tokens=40.0)


def both(role: str, sums: list[float], units: list[float]) -> list[Answered]:
    """A role's shares on two families of as many questions as given."""
    return [
        answered(role, task, {f"{task}{n}": share for n, share in enumerate(shares)})
        for task, shares in (("sums", sums), ("units", units))
    ]


def test_a_difference_is_paired_by_question_and_families_weigh_alike():
    found = Arms([*both("base", [0.0, 0.5], [0.5, 0.5, 0.0]), *both("student", [0.5, 1.0], [1.0, 0.5, 0.0])])
    pair = found.difference("student", "base")
    # sums: +0.5, +0.5 -> 0.5 ± 0; units: +0.5, 0, 0 -> 1/6 ± sqrt(var / 3), var = (1/9 + 1/36 + 1/36) / 2 = 1/12.
    assert pair.value == pytest.approx((0.5 + 1 / 6) / 2)
    assert pair.se_questions == pytest.approx(math.sqrt(1 / 12 / 3) / 2)
    assert (pair.se_seeds, pair.questions) == (0.0, 5)
    assert pair.words == "beyond noise"


def test_seeds_add_their_variance():
    seeds = [0.4, 0.5, 0.6]
    rows = both("base", [0.2, 0.2], [0.2, 0.2])
    for number, share in enumerate(seeds, 1):
        rows += both(f"student-{number}", [share, share], [share, share])
    pair = Arms(rows).difference("student", "base")
    assert pair.value == pytest.approx(0.3)
    assert pair.se_questions == pytest.approx(0.0)
    assert pair.se == pair.se_seeds == pytest.approx(math.sqrt(0.01 / 3))  # var(0.4, 0.5, 0.6) = 0.01


def test_a_small_difference_is_within_noise_and_one_question_tells_nothing():
    rows = [*both("base", [0.0, 1.0], [0.0, 1.0]), *both("student", [1.0, 0.5], [0.0, 1.0])]
    assert Arms(rows).difference("student", "base").words == "within noise"
    rows = [*both("base", [0.0], [0.0]), *both("student", [1.0], [0.0])]
    assert Arms(rows).difference("student", "base").words == "too few questions to tell"


def test_the_share_of_the_teacher_is_a_ratio_of_means():
    rows = [*both("student", [0.5, 0.0], [0.25, 0.25]), *both("teacher", [1.0, 0.0], [0.5, 0.5])]
    share = Arms(rows).ratio("student", "teacher")
    assert (share.value, share.se) == (pytest.approx(0.5), pytest.approx(0.0))  # exactly half on every question
    nothing = [*both("student", [0.5, 0.0], [0.0, 0.0]), *both("teacher", [0.0, 0.0], [0.0, 0.0])]
    assert math.isnan(Arms(nothing).ratio("student", "teacher").value)
    assert compare(nothing)["of_teacher"]["value"] is None


def test_general_families_and_those_without_a_sandbox_leave_every_mean():
    rows = [*both("base", [0.0, 0.0], [0.0, 0.0]), *both("student", [1.0, 1.0], [0.5, 0.5])]
    for role in ("base", "student"):
        rows.append(answered(role, "functions", {"f": 0.0} if role == "base" else {}, "code", ran=role == "base"))
        rows.append(answered(role, "smalltalk", {"g1": 0.0, "g2": 0.0}, "general"))
    found = compare(rows)
    assert [(f["name"], f["reasoning"], f["in_means"], f["ran"]) for f in found["families"]] == [
        ("sums", True, True, True),
        ("units", True, True, True),
        ("functions", True, False, False),
        ("smalltalk", False, False, True),
    ]
    assert found["differences"][0]["value"] == pytest.approx(0.75)


def test_a_family_counts_as_not_run_where_the_sandbox_decided_nothing():
    def samples(by: str) -> list[Sample]:
        return [Sample("q", n, State.UNDECIDED, by, None, True, True, "stop", 9) for n in range(2)]

    def ran(by: str) -> bool:
        row = score(samples(by), ["q"], model="m", role="base", task="functions", domain="code", k=2)
        return Answered.of(row, samples(by)).ran

    assert not ran("sandbox")
    assert ran("timeout")


ROWS = [
    *both("base", [0.0, 0.2], [0.1, 0.1]),
    *both("answers_only-1", [0.2, 0.2], [0.2, 0.2]),
    *both("answers_only-2", [0.2, 0.4], [0.2, 0.2]),
    *both("unverified-1", [0.4, 0.4], [0.5, 0.5]),
    *both("student", [0.5, 0.5], [0.5, 0.5]),
    *both("student-2", [0.5, 0.7], [0.5, 0.5]),
    *both("teacher", [0.9, 1.0], [0.9, 1.0]),
    *[answered(role, "functions", {}, "code", ran=False) for role in ("base", "student", "teacher")],
    *[answered(role, "smalltalk", {"g1": 1.0, "g2": 0.5}, "general") for role in ("base", "student", "teacher")],
]


def test_the_table_of_arms_word_for_word():
    text = arms_table(compare(ROWS))
    assert (
        text
        == """\
pass@1 %      sums  units  functions   mean ± se  no answer %  tokens  seeds  general: smalltalk
------------  ----  -----  ---------  ----------  -----------  ------  -----  ------------------
base          10.0   10.0    not run  10.0 ± 5.0         25.0      40      1                75.0
answers_only  25.0   20.0    not run  22.5 ± 3.5         25.0      40      2                 n/a
unverified    40.0   50.0    not run  45.0 ± 0.0         25.0      40      1                 n/a
student       55.0   50.0    not run  52.5 ± 3.5         25.0      40      2                75.0
teacher       95.0   95.0    not run  95.0 ± 3.5         25.0      40      1                75.0

student - base: +42.5 ± 3.5 points, what training brings (beyond noise)
student - answers_only: +30.0 ± 3.5 points, what thoughts bring (beyond noise)
student - unverified: +7.5 ± 3.5 points, what verification and readability bring (beyond noise)
student of teacher: 55.3 ± 3.2 % of its mean"""
    )


def test_the_result_of_a_run_with_arms_is_their_table_and_the_phases(tmp_path: Path):
    for stage, seconds, peak in (("train", 10.0, 900.0), ("arms", 80.5, 1000.0), ("eval", 50.0, 2500.0)):
        row = Manifest(stage, True, 4, 4, {}, seconds, 512.0, {}, {}, "", {}, "h", {}, peak)
        row.write(tmp_path / STAGES[stage].folder)
    (tmp_path / "eval" / "arms.json").write_text(json.dumps(compare(ROWS)))
    table, phases = result_table(tmp_path).split("\n\nstage")
    assert table == arms_table(compare(ROWS))
    assert phases.splitlines()[-4:] == [
        "train           4     4        0     10.0      900",
        "arms            4     4        0     80.5     1000",
        "eval            4     4        0     50.0     2500",
        "total                               140.5     2500",
    ]
