"""Scores from graded samples: offline, and functions of their arguments alone.

What counts as a try: a sample that the verifier decided; and a sample that gave no answer at all (an
unclosed thought, nothing to extract, cut off before an answer), which is a wrong try: a benchmark
asks for an answer. A sample that stays undecided for another cause (a parser, a time limit, trouble
of ours) is neither right nor a try. Scores are shares in 0..1; an estimate that is undefined is NaN.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.records import State, Trace, Verdict, normalised

NO_ANSWER = "extraction"  # Verdict.decided_by where the verifier found no answer to grade
NOISE = 2.0  # standard errors: a difference within two of them is called noise (95% of a normal)


@dataclass(frozen=True, slots=True)
class Sample:
    """What scoring needs of one graded sample."""

    problem_id: str
    sample: int
    state: State
    decided_by: str
    extracted: str | None
    thought: bool
    answer: bool
    finish_reason: str
    completion_tokens: int

    @classmethod
    def of(cls, trace: Trace, verdict: Verdict) -> Sample:
        """Put together a trace and its verdict."""
        return cls(
            problem_id=trace.problem_id,
            sample=trace.sample,
            state=State(verdict.state),
            decided_by=verdict.decided_by,
            extracted=verdict.extracted,
            thought=bool(trace.thought),
            answer=bool(trace.answer),
            finish_reason=trace.finish_reason,
            completion_tokens=trace.completion_tokens,
        )

    @property
    def no_answer(self) -> bool:
        """Whether the sample gave nothing to grade."""
        if self.state is not State.UNDECIDED:
            return False
        return self.decided_by == NO_ANSWER or not self.answer or (self.truncated and self.extracted is None)

    @property
    def truncated(self) -> bool:
        """Whether the sample was cut off by its token budget."""
        return self.finish_reason == "length"

    @property
    def right(self) -> float | None:
        """1.0 or 0.0 for a try, None for what is no try."""
        if self.state is State.UNDECIDED:
            return 0.0 if self.no_answer else None
        return float(self.state is State.CORRECT)


@dataclass(frozen=True, slots=True)
class Score:
    """One row of scores.json. Shares are in 0..1, undefined estimates NaN (null in JSON)."""

    model: str
    role: str
    arm: str
    """What the role is one of several seeds of; elsewhere the role itself."""
    seed: int | None
    """The seed that it was trained under, None where Retort did not train it."""
    task: str
    domain: str
    reasoning: bool
    """At least half of the samples hold a thought."""
    k: int
    """Samples asked of each question."""
    questions: int
    pass_at_1: float
    se: float
    """Standard error of pass_at_1, clustered by question."""
    cons_at_k: float
    pass_at_k: float
    no_answer: float
    """Share of samples with no answer (wrong tries)."""
    truncated: float
    """Share of samples cut off by max_tokens."""
    undecided: float
    """Share of questions with no decided sample: they are in no mean."""
    undecided_samples: int
    mean_tokens: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON takes it: NaN as None."""
        return plain(asdict(self))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with every NaN as None."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def mean(values: Iterable[float]) -> float:
    """Return the mean, NaN of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def standard_error(means: Sequence[float]) -> float:
    """Return std(means, ddof=1) / sqrt(n), NaN below two means.

    Over the means of questions it is the standard error clustered by question: samples of one
    question are not independent (Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640).
    """
    n = len(means)
    if n < 2:
        return math.nan
    centre = mean(means)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in means) / (n - 1) / n)


def by_question(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return the samples by question, in sample order."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.problem_id].append(sample)
    return {problem: sorted(group, key=lambda sample: sample.sample) for problem, group in found.items()}


def question_means(samples: Iterable[Sample]) -> dict[str, float]:
    """Return each question's share of right tries; questions without a try are left out."""
    means = {}
    for problem, group in by_question(samples).items():
        tries = [right for sample in group if (right := sample.right) is not None]
        if tries:
            means[problem] = mean(tries)
    return means


def consensus(group: Sequence[Sample]) -> float:
    """Return how right the majority answer of one question's samples is, ties split.

    Votes are equal normalised texts of the extracted answers (white space aside). A winner counts as
    right by the share of right among its decided samples, and several winners by their mean. 0 where
    no sample has an answer; NaN where nothing was decided of the winners.
    """
    votes: dict[str, list[Sample]] = defaultdict(list)
    for sample in group:
        if sample.extracted is not None and not sample.no_answer:
            votes["".join(normalised(sample.extracted).split())].append(sample)
    if not votes:
        return mean(right for sample in group if (right := sample.right) is not None)
    most = max(len(voters) for voters in votes.values())
    shares = []
    for voters in votes.values():
        decided = [right for sample in voters if (right := sample.right) is not None]
        if len(voters) == most and decided:
            shares.append(mean(decided))
    return mean(shares)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k samples is right, given c right of n.

    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, HumanEval, arXiv 2107.03374); NaN where n < k or k < 1.
    """
    if k < 1 or n < k:
        return math.nan
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def score(
    samples: Sequence[Sample],
    questions: Sequence[str],
    *,
    model: str,
    role: str,
    task: str,
    domain: str,
    k: int,
    arm: str = "",
    seed: int | None = None,
) -> Score:
    """Return the score row of one model on one benchmark.

    Args:
        samples: the graded samples; a question may have fewer than k.
        questions: the ids of all questions asked, so that one without samples is seen as undecided.
        k: samples asked of each question.
        arm: by default the role.
    """
    groups = by_question(samples)
    means = question_means(samples)
    votes = [vote for group in groups.values() if not math.isnan(vote := consensus(group))]
    tries = {problem: [s.right for s in group if s.right is not None] for problem, group in groups.items()}
    chances = [pass_at_k(len(rights), int(sum(rights)), k) for rights in tries.values() if len(rights) >= k]
    return Score(
        model=model,
        role=role,
        arm=arm or role,
        seed=seed,
        task=task,
        domain=domain,
        reasoning=bool(samples) and mean(sample.thought for sample in samples) >= 0.5,
        k=k,
        questions=len(questions),
        pass_at_1=mean(means.values()),
        se=standard_error(list(means.values())),
        cons_at_k=mean(votes),
        pass_at_k=mean(chances),
        no_answer=mean(sample.no_answer for sample in samples),
        truncated=mean(sample.truncated for sample in samples),
        undecided=(len(questions) - len(means)) / len(questions) if questions else math.nan,
        undecided_samples=sum(sample.right is None for sample in samples),
        mean_tokens=mean(sample.completion_tokens for sample in samples),
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """One model less another on the questions that both decided; shares, NaN where undefined."""

    questions: int
    difference: float
    se: float

    @property
    def words(self) -> str:
        """Say whether the difference is more than sampling noise (NOISE standard errors)."""
        if math.isnan(self.se):
            return "too few questions to tell"
        return "within noise" if abs(self.difference) <= NOISE * self.se else "beyond noise"

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as JSON takes it."""
        return plain({**asdict(self), "words": self.words})


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Difference:
    """Return the mean of ours - theirs over shared questions, with the standard error of that mean.

    Pairing takes out how hard the questions are, which a difference of two means carries twice.

    Args:
        ours, theirs: question id -> share of right tries, as from `question_means`.
    """
    differences = [ours[problem] - theirs[problem] for problem in ours if problem in theirs]
    return Difference(len(differences), mean(differences), standard_error(differences))
