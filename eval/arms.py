"""Arms compared: base, controls, student and teacher on the same questions, and what stands between them.

Shares are in 0..1 and undefined ones NaN (None in arms.json). Questions are the clusters, families
weigh alike, and reasoning families alone (all whose domain is not "general") make the means.

- m(a,s,f,q): the share of right tries of arm a, seed s, on question q of family f.
- M(a,f,q) = mean over seeds of m. P(a) = mean over families f of mean over questions q of M(a,f,q).
- A difference takes, family by family, D(f,q) = M(a,f,q) - M(b,f,q) over the questions that both
  decided: paired, so that how hard a question is cancels. Its estimate is the mean over families of
  mean_q D(f,q).
- Its variance is that of questions plus that of seeds. Questions: sum over families of
  var_q(D(f,q), ddof 1) / n(f), over the square of the number of families. Seeds: for each of the two
  arms var_s(P(a,s), ddof 1) / seeds, P(a,s) being the same mean for one seed; 0 where an arm is one
  model (base, teacher, or one seed: then how much a seed matters is not known, and `seeds` says so).
  The spread over seeds holds some of the samples' own noise, which the questions' part holds too: the
  error is rather too large than too small.
- student / teacher: R = P(student) / P(teacher), with D(f,q) = (M(student) - R M(teacher)) / P(teacher)
  in place of the difference (the delta method), and the seeds' part of the student over P(teacher)^2.

A family of which no sample of some arm could be decided leaves every mean; where that was for want of a
sandbox, it was not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.scoring import NOISE, Sample, Score, mean, plain, question_means, standard_error
from filtering.verdicts import not_run

ORDER = ("base", "answers_only", "unverified", "verified", "student", "teacher")
AGAINST = ("base", "answers_only", "unverified", "verified")
GENERAL = "general"  # the domain whose benchmarks are no reasoning

Means = Mapping[str, float]


@dataclass(frozen=True)
class Answered:
    """How one model, under one seed of its arm, did on one benchmark."""

    role: str
    arm: str
    task: str
    domain: str
    means: Means
    """Question -> share of right tries."""
    ran: bool
    no_answer: float
    mean_tokens: float

    @classmethod
    def of(cls, row: Score, samples: Sequence[Sample]) -> Answered:
        """Put together a score and the samples under it."""
        stuck = bool(samples) and all(not_run(s.state, s.decided_by) for s in samples)
        means = question_means(samples)
        return cls(row.role, row.arm, row.task, row.domain, means, not stuck, row.no_answer, row.mean_tokens)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, and the error's two parts."""

    value: float
    se: float
    se_questions: float
    se_seeds: float
    questions: int

    def to_dict(self, words: bool = False) -> dict[str, Any]:
        """Return it as JSON takes it, with what it amounts to in words if asked."""
        row = {
            "value": self.value,
            "se": self.se,
            "se_questions": self.se_questions,
            "se_seeds": self.se_seeds,
            "questions": self.questions,
        }
        return plain({**row, "words": self.words} if words else row)

    @property
    def words(self) -> str:
        """Say whether the value is further from 0 than NOISE standard errors."""
        if math.isnan(self.value) or math.isnan(self.se):
            return "too few questions to tell"
        return "within noise" if abs(self.value) <= NOISE * self.se else "beyond noise"


class Arms:
    """All that was answered, by arm, seed and family."""

    def __init__(self, answered: Iterable[Answered]) -> None:
        self.rows = list(answered)
        present = {row.arm for row in self.rows}
        self.arms = [arm for arm in ORDER if arm in present]
        self.tasks = list(dict.fromkeys(row.task for row in self.rows))
        self.domains = {row.task: row.domain for row in self.rows}
        self.reasoning = [task for task in self.tasks if self.domains[task] != GENERAL]
        self.counted = [task for task in self.reasoning if all(row.means for row in self.rows if row.task == task)]

    def roles(self, arm: str) -> list[str]:
        """Return the roles of an arm: one for each seed."""
        return list(dict.fromkeys(row.role for row in self.rows if row.arm == arm))

    def of(self, arm: str, task: str) -> list[Answered]:
        """Return how the seeds of an arm did on a family."""
        return [row for row in self.rows if row.arm == arm and row.task == task]

    def questions(self, arm: str, task: str) -> dict[str, float]:
        """Return M: question -> mean over the seeds that decided it."""
        seeds = self.of(arm, task)
        names = {name for row in seeds for name in row.means}
        return {name: mean(row.means[name] for row in seeds if name in row.means) for name in sorted(names)}

    def seed_variance(self, arm: str) -> float:
        """Return the variance of the mean of an arm's seeds; 0 where it is one model."""
        each = [
            mean(mean(row.means.values()) for row in self.rows if row.role == role and row.task in self.counted)
            for role in self.roles(arm)
        ]
        return standard_error(each) ** 2 if len(each) > 1 else 0.0

    def estimate(self, values: Callable[[str], Sequence[float]], seeds: float) -> Estimate:
        """Return the mean over the counted families of the mean of each one's `values`, one a question.

        Args:
            seeds: the seeds' part of its variance.
        """
        found = [values(task) for task in self.counted]
        errors = [standard_error(row) ** 2 for row in found]
        questions = math.sqrt(math.fsum(errors)) / len(errors) if errors else math.nan
        return Estimate(
            mean(mean(row) for row in found),
            math.hypot(questions, math.sqrt(seeds)),
            questions,
            math.sqrt(seeds),
            sum(map(len, found)),
        )

    def level(self, arm: str) -> Estimate:
        """Return P: an arm's mean over families."""
        return self.estimate(lambda task: list(self.questions(arm, task).values()), self.seed_variance(arm))

    def paired(self, arm: str, against: str, weight: float = 1.0) -> Callable[[str], list[float]]:
        """Return the function from a family to M(arm) - weight x M(against) on shared questions."""

        def values(task: str) -> list[float]:
            ours, theirs = self.questions(arm, task), self.questions(against, task)
            return [ours[name] - weight * theirs[name] for name in ours if name in theirs]

        return values

    def difference(self, arm: str, against: str) -> Estimate:
        """Return one arm less another, paired by question."""
        seeds = self.seed_variance(arm) + self.seed_variance(against)
        return self.estimate(self.paired(arm, against), seeds)

    def ratio(self, arm: str, against: str) -> Estimate:
        """Return one arm as a share of another, NaN where that one has nothing right."""
        ours, theirs = self.level(arm).value, self.level(against).value
        if not theirs > 0:
            return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
        share = ours / theirs
        left = self.paired(arm, against, share)
        seeds = (self.seed_variance(arm) + share**2 * self.seed_variance(against)) / theirs**2
        found = self.estimate(lambda task: [value / theirs for value in left(task)], seeds)
        return Estimate(share, found.se, found.se_questions, found.se_seeds, found.questions)


def compare(answered: Iterable[Answered]) -> dict[str, Any]:
    """Return arms.json: families, a row for each arm, differences of the student, its share of the teacher's mean."""
    arms = Arms(answered)
    against = [arm for arm in AGAINST if arm in arms.arms and "student" in arms.arms]
    return {
        "families": [
            {
                "name": task,
                "domain": arms.domains[task],
                "reasoning": task in arms.reasoning,
                "in_means": task in arms.counted,
                "ran": all(row.ran for row in arms.rows if row.task == task),
            }
            for task in arms.tasks
        ],
        "arms": [_arm(arms, arm) for arm in arms.arms],
        "differences": [
            {
                "model": "student",
                "against": other,
                "seeds": [len(arms.roles("student")), len(arms.roles(other))],
                **arms.difference("student", other).to_dict(words=True),
                "families": {task: _family(arms.paired("student", other)(task), "value") for task in arms.tasks},
            }
            for other in against
        ],
        "of_teacher": arms.ratio("student", "teacher").to_dict() if {"student", "teacher"} <= set(arms.arms) else None,
    }


def _arm(arms: Arms, arm: str) -> dict[str, Any]:
    rows = [row for row in arms.rows if row.arm == arm and row.task in arms.counted]
    return {
        "arm": arm,
        "seeds": len(arms.roles(arm)),
        "roles": arms.roles(arm),
        "families": {task: _family(list(arms.questions(arm, task).values()), "pass_at_1") for task in arms.tasks},
        "mean": arms.level(arm).to_dict(),
        **plain(
            {"no_answer": mean(row.no_answer for row in rows), "mean_tokens": mean(row.mean_tokens for row in rows)}
        ),
    }


def _family(values: Sequence[float], name: str) -> dict[str, Any]:
    return plain({name: mean(values), "se": standard_error(values)})
