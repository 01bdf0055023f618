"""Reading the final answer out of a response, and numbers out of answers."""

from __future__ import annotations

import re
from fractions import Fraction


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
PHRASE = re.compile(
    r"(?:(?:\b(?:the|my|our|final|correct)\s+(?:final\s+|correct\s+)?answer\s*(?:\bis\b|\bare\b|=|[:：])|\banswer\s*[:：]"
    r"|(?:最终)?答案\s*(?:是|为|[:：]))[ \t*]*(?:(?:[:：]|[^\S \t])[\s*]*)?"  # linear: no blank that two parts take
    r"|####\s*(?=[-+$\d\\.]))(?P<answer>[^\s:：*][^\n]*)",
    re.IGNORECASE,
)
ASIDE = re.compile(r",?\s+(?:since|because|which|not|as|so)\b.*|\s*\([A-Za-z -]+\)\s*$", re.IGNORECASE)
# A '-' after a digit or a letter is a dash or a minus between two, not the number's own sign.
NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d{1,3}(?!\w))?"
)
SENTENCE_END = re.compile(r"(?<=[^\s.])[.!?;](?:\s|$)|[。！？；]")
BEFORE = _words("a total of about approximately around only exactly so equals is rs usd there are he she they it")
"""Words that may stand before a number without changing it."""
CHANGING = _words(
    "not minus negative sqrt root log ln sin cos tan half third quarter percent hundred thousand million "
    "billion trillion dozen pair and or plus times over point squared cubed"
)
"""Words that change a number: beside one of these it is not read as a plain number."""
ATTACHED = _words("cm mm km m kg g mg lb lbs ft in s ms min h hr hrs am pm mph kmh st nd rd th ml l kb mb gb kw hz")
"""Units that may stand right behind a number, without a space."""
FUNCTIONS = _words("sqrt frac sin cos tan cot sec csc log ln exp pi min max mod gcd lcm inf lim det cdot times")


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

    In order: what `stated_answer` finds, the last number.
    """
    if stated := stated_answer(text):
        return stated
    if numbers := [found[0] for found in NUMBER.finditer(text) if found[0]]:
        return numbers[-1], "last number"
    return None


def stated_answer(text: str) -> tuple[str, str] | None:
    """Return (answer, how) where a response marks its answer, else None.

    In order: the last \\boxed, the last explicit final-answer phrase (English or Chinese; one with a
    number or a formula before one with words alone: "The answer is correct.").
    """
    if boxes := boxed_answers(text):
        return boxes[-1], "boxed"
    phrases = [phrase for phrase in map(phrase_core, phrases_of(text)) if phrase]
    telling = [phrase for phrase in phrases if re.search(r"\d|\\|^\W*[A-Za-z]\W*$", phrase)]
    return ((telling or phrases)[-1], "phrase") if phrases else None


def phrases_of(text: str) -> list[str]:
    """Return what follows each explicit final-answer phrase, to the end of its line."""
    return [found["answer"] for found in PHRASE.finditer(text)]


def phrase_core(answer: str) -> str:
    """Return what a final-answer phrase states, without the next sentence and without asides."""
    answer = SENTENCE_END.split(answer.strip(), maxsplit=1)[0]
    return ASIDE.sub("", answer.replace("**", "")).strip(" *")


def normalised_answer(text: str) -> str:
    """Return an answer without what does not change its meaning: dollar signs, spacing, text wrappers, final stop."""
    text = text.strip().strip("$").strip()
    text = text.removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]")
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = text.replace("\\left", "").replace("\\right", "").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"(?<=\d)(?:\\[,;!]|,)(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text).replace("\\$", "$").replace("\\%", "%").replace("−", "-")
    return re.sub(r"\s+", " ", text).strip().rstrip(".").strip()


def as_number(text: str) -> Fraction | None:
    """Return an answer's number, where it is plainly one: an integer, decimal, fraction, or one number with a unit.

    Signs of currency and per cent, and units, are left aside ("18 dollars" and "$18" are 18). None for all
    else: formulas are never evaluated here, and a word that changes the number ("3 million", "not 18",
    "5x") makes it none.
    """
    text = ASIDE.sub("", normalised_answer(text)).replace("$", "").strip()
    if found := re.fullmatch(r"(-?)\\frac\s*\{\s*(-?\d{1,40})\s*\}\s*\{\s*(-?\d{1,40})\s*\}", text):
        return None if int(found[3]) == 0 else Fraction(int(found[2]), int(found[3])) * (-1 if found[1] else 1)
    if found := re.fullmatch(r"(?:(-?)(\d{1,40}) )?(-?\d{1,40})\s*/\s*(\d{1,40})", text):
        if int(found[4]) == 0:
            return None
        mixed = Fraction(int(found[3]), int(found[4])) + int(found[2] or 0)
        return -mixed if found[1] else mixed
    numbers = [found for found in NUMBER.finditer(text) if found[0]]
    if len(numbers) != 1 or len(numbers[0][0]) > 60:
        return None
    before, after = text[: numbers[0].start()], text[numbers[0].end() :]
    if not re.fullmatch(r"(?:[A-Za-z]+\s+)*[=€£¥\s]*", before) or not set(before.lower().split()) - {"="} <= BEFORE:
        return None
    found = re.fullmatch(r"([^\W\d_]*)[%°.]?((?:\s*/?\s+?/?\s*|/)[^\W\d_]{2,}\.?)*", after.rstrip())
    attached = re.match(r"[^\W\d_]*", after)
    if found is None or attached is None or (attached[0] and attached[0].lower() not in ATTACHED):
        return None
    words = re.findall(r"[^\W\d_]+", after.lower())
    if CHANGING & {*words, *(word.removesuffix("s") for word in words)}:
        return None
    try:
        return Fraction(numbers[0][0].replace(",", ""))
    except ValueError:
        return None


def is_formula(text: str) -> bool:
    """Whether an answer is mathematics that a symbolic comparison can be trusted with, not prose."""
    text = re.sub(r"\\(?:begin|end)\s*\{\w+\*?\}|\\[A-Za-z]+", " ", normalised_answer(text))
    return all(word.lower() in FUNCTIONS for word in re.findall(r"[^\W\d_]{2,}", text))
