"""Math: countdown. Combine three numbers, each used once, to reach a target; the thought is a search."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice

from teacher.families.exercise import FULL, TURNING, Exercise, Hand, Size, Worked

NAME = "countdown"
DOMAIN = "math"
VERIFIER = "countdown"
LARGEST = 99
SEARCHED = 9
"""The search meets the target among so many results."""

Node = tuple[str, int, str, int, int]
"""Left operand, operator, right operand, result: as in 3 + 7 = 10, with the number that is left."""


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return three numbers and a target that can be reached; two where it is not to be full."""
    while True:
        numbers = [rng.randint(1, 12) for _ in range(3 if size == FULL else 2)]
        targets = sorted({result for _, result, _ in islice(_leaves(numbers), SEARCHED)})
        if targets:
            target = rng.choice(targets)
            break
    listed = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    reference = json.dumps({"numbers": numbers, "target": target})
    return Exercise(f"Use {listed} to make {target}.", reference, lambda hand: _work(numbers, target, hand))


def _steps(left: int, right: int) -> Iterator[tuple[str, int]]:
    """The steps that are tried on two numbers, in order: never below 0, never above 99."""
    large, small = max(left, right), min(left, right)
    yield f"{left} + {right}", left + right
    yield f"{large} - {small}", large - small
    yield f"{left} * {right}", left * right


def _leaves(numbers: list[int]) -> Iterator[tuple[list[str], int, str]]:
    """Yield (steps written so far, result, expression) in the order of the search."""
    if len(numbers) == 2:
        for shown, result in _steps(*numbers):
            if result <= LARGEST:
                yield [f"{shown} = {result}"], result, shown
        return
    for spare in (2, 1, 0):
        left, right = (number for place, number in enumerate(numbers) if place != spare)
        third = numbers[spare]
        for shown, middle in _steps(left, right):
            if middle > LARGEST:
                continue
            for last, result in _steps(middle, third):
                if result <= LARGEST:
                    operator = last.split()[1]
                    turned = operator == "-" and middle < third
                    both = f"{third} - ( {shown} )" if turned else f"( {shown} ) {operator} {third}"
                    yield [f"{shown} = {middle}", f"{last} = {result}"], result, both


def _work(numbers: list[int], target: int, hand: Hand) -> Worked:
    steps: list[str] = []
    before, answer = "", ""
    for shown, result, expression in _leaves(numbers):
        answer = expression
        *first, last = shown
        if first and first[0] != before:
            steps.append(f"{TURNING}{first[0]}" if before else first[0])
            before = first[0]
        found = result == target
        if (found or hand.rng.random() < 0.1) and hand.errs():
            # A slip takes a hit for a miss, or a miss for a hit: one miss in ten may be mistaken.
            found = not found
        steps.append(f"{last} {'yes' if found else 'high' if result > target else 'low'}")
        if found:
            break
    return steps, f"The answer is {answer}."
