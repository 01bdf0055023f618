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
    from_english = rng.random() < 0.5
    question = questions(number)[0 if from_english else 1]

    def work(hand: Hand) -> Worked:
        read = _other(hand.rng, number) if hand.errs() else number
        return places(read, from_english), chinese(read) if from_english else english(read)

    return Exercise(question, chinese(number) if from_english else english(number), work)


def places(number: int, in_english: bool) -> list[str]:
    """Return a number's hundreds, tens and ones in words, a step each, in the language of the question."""
    digits = [number // 100, number // 10 % 10, number % 10][0 if number >= 100 else 1 :]
    if in_english:
        names = ("hundreds", "tens", "ones")[-len(digits) :]
        steps = [f"{ONES[digit]} {name}" for digit, name in zip(digits, names, strict=True)]
        return [f"We have {steps[0]}", *steps[1:]]
    return [f"{name}位是{DIGITS[digit]}" for digit, name in zip(digits, "百十个"[-len(digits) :], strict=True)]


def questions(number: int) -> tuple[str, str]:
    """Return the two questions about a number: from English to Chinese, and back."""
    return f"Write {english(number)} in Chinese.", f"把{chinese(number)}写成英文。"


def _other(rng: random.Random, number: int) -> int:
    return rng.choice([by for by in (number + 10, number - 10, number + 1, number - 1) if 0 < by < 1000])


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
