"""The card of a bundled model: what it is, how it was made, what was measured."""

from __future__ import annotations

from typing import Any

from pipeline.manifest import versions
from students.nano.measure import THRESHOLDS, Measured, measure
from teacher.families import family
from teacher.families.exercise import FULL, SINGLE
from teacher.nano.corpus import THOUGHT_OUT
from teacher.nano.pretrain import Plan, parameters

QUESTIONS = 100
MEASURED = (*THOUGHT_OUT, "numerals")
ABOUT = {
    "teacher": (
        "Retort nano teacher",
        "A mixture-of-experts language model of DeepSeek-V3's architecture (latent attention, routed and shared "
        "experts, sigmoid routing), small enough to be served on two cores. It thinks its problems through, "
        "errs in some of them and is now and then unreadable, on purpose: rejection sampling and readability "
        "rules are to have work. Its embeddings were tied in training and are saved untied.",
    ),
    "base": (
        "Retort nano base",
        "A dense language model of Qwen2's architecture, the base of the demo's students. It knows the formats "
        "and the single steps of its families and answers long questions at once: it has not learned to "
        "think them through.",
    ),
}


def card(role: str, model: Any, tokenizer: Any, took: list[tuple[Plan, dict[str, Any]]], seed: int) -> str:
    """Measure a model and return its card as Markdown; every figure on it comes from that or from training.

    Args:
        took: what `train` returned for the training and each finish, with their plans.
    """
    title, about = ABOUT[role]
    (plan, _), *finishes = took
    last = ", ".join(f"{one['tokens'] / 1e6:.1f}M (Muon {finish.muon_lr})" for finish, one in finishes)
    tokens, steps, seconds = (sum(one[key] for _, one in took) for key in ("tokens", "steps", "seconds"))
    used = versions()
    lines = [
        "---",
        "license: apache-2.0",
        "language: [en, zh]",
        "library_name: transformers",
        "---",
        "",
        f"# {title}",
        "",
        about,
        "",
        f"- **Parameters**: {parameters(model):,}; vocabulary {len(tokenizer)} pieces, one token a number below 100.",
        f"- **Trained** from scratch on {tokens / 1e6:.1f}M generated tokens in {steps:,} steps, {seconds / 60:.0f} "
        f"minutes on one core; seed {seed}; rows isolated, not packed; Muon (learning rate {plan.muon_lr}) for the "
        f"matrices, AdamW ({plan.adamw_lr}) for the rest, both rates falling over the last {plan.decay:.0%} of the "
        f"tokens{'' if plan.power == 1 else f', as the power {plan.power} of what is left'}. "
        + (
            f"The last of these tokens are finishes with fresh rates, rather of what was half learned by then: {last}. "
            if last
            else ""
        )
        + "`make nano` does it again.",
        "- **Data**: the families of `teacher/families/`, "
        + (
            "thoughts worked out to the end, with slips and flaws put in (`teacher/nano/corpus.py`)"
            if role == "teacher"
            else "single steps and short chains, long questions answered at once, pages of facts, copies, lists and "
            "worked examples (`students/nano/corpus.py`)"
        )
        + "; held-out questions, which the benchmarks ask, are in none of it.",
        f"- **Made with** {', '.join(f'{name} {version}' for name, version in sorted(used.items()))}.",
        "",
    ]
    return "\n".join(lines + (_teacher_figures if role == "teacher" else _base_figures)(model, tokenizer)) + "\n"


def _teacher_figures(model: Any, tokenizer: Any) -> list[str]:
    found = [measure(model, tokenizer, name, count=QUESTIONS, temperature=1.0, top_p=1.0) for name in MEASURED]
    lines = [
        f"## Measured at temperature 1.0, {QUESTIONS} samples of held-out questions a family",
        "",
        "| family | domain | right % | no answer % | mean tokens |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.family} | {family(one.family).DOMAIN} | {_right(one)} | {100 * one.no_answer / one.samples:.1f} | "
        f"{one.tokens / one.samples:.0f} |"
        for one in found
    ]
    samples = sum(one.samples for one in found)
    correct = sum(one.states["correct"] for one in found)
    lines += ["", "| flaw | of all samples % | of the correct ones % |", "|---|---|---|"]
    for rule in THRESHOLDS:
        among = sum(one.flaws_of_correct[rule] for one in found) / max(1, correct)
        lines.append(f"| {rule} | {100 * sum(one.flaws[rule] for one in found) / samples:.1f} | {100 * among:.1f} |")
    return lines


def _base_figures(model: Any, tokenizer: Any) -> list[str]:
    opening = "<think>\n"
    lines = [
        f"## Measured at temperature 0.6, top-p 0.95, {QUESTIONS} samples of held-out questions a family",
        "",
        "| family | single step: right % | no answer % | full length: right % | no answer % |",
        "|---|---|---|---|---|",
    ]
    for name in MEASURED:
        single = measure(model, tokenizer, name, size=SINGLE, count=QUESTIONS, opening=opening)
        full = measure(model, tokenizer, name, size=FULL, count=QUESTIONS, opening=opening)
        lines.append(
            f"| {name} | {_right(single)} | {100 * single.no_answer / single.samples:.1f} | "
            f"{_right(full)} | {100 * full.no_answer / full.samples:.1f} |"
        )
    return lines


def _right(one: Measured) -> str:
    tries = one.samples - (one.states["undecided"] - one.no_answer)
    return f"{100 * one.states['correct'] / tries:.1f}" if tries else "not run"
