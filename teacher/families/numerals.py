"""General: number words from English to Chinese and back."""

from __future__ import annotations

import random

from teacher.families.exercise import FULL, Exercise, Hand, Size, Worked

NAME = "numerals"
DOMAIN = "general"
VERIFIER = "exact"

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
DIGITS = "零一二三四五六七八九"


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return a number from 100 to 999 to be written in the other language, or below 100 where it is not to be full."""
    number = rng.randint(1, 99) if size < FULL else rng.randint(100, 999)
    if rng.random() < 0.5:
        question, answer = questions(number)[0], chinese(number)
        steps = ["The number is given in English", "each part has its own sign"]
    else:
        question, answer = questions(number)[1], english(number)
        steps = ["这个数是中文", "一部分一部分来写"]

    def work(hand: Hand) -> Worked:
        return steps, answer if not hand.errs() else _other(hand.rng, number, question.startswith("W"))

    return Exercise(question, answer, work)


def questions(number: int) -> tuple[str, str]:
    """Return the two questions about a number: from English to Chinese, and back."""
    return f"Write {english(number)} in Chinese.", f"把{chinese(number)}写成英文。"


def _other(rng: random.Random, number: int, to_chinese: bool) -> str:
    wrong = rng.choice([by for by in (number + 10, number - 10, number + 1, number - 1) if 0 < by < 1000])
    return chinese(wrong) if to_chinese else english(wrong)


def english(number: int) -> str:
    """Return a number below 1,000 in English words, without hyphens."""
    if number >= 100:
        rest = number % 100
        return f"{ONES[number // 100]} hundred" + (f" {english(rest)}" if rest else "")
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


def chinese(number: int) -> str:
    """Return a number below 1,000 in Chinese numerals."""
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    if not hundreds:
        head = "" if not tens else "十" if tens == 1 else f"{DIGITS[tens]}十"
        return head + (DIGITS[ones] if ones or not tens else "")
    text = f"{DIGITS[hundreds]}百"
    if tens:
        return text + f"{DIGITS[tens]}十" + (DIGITS[ones] if ones else "")
    return text + (f"零{DIGITS[ones]}" if ones else "")
