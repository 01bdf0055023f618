"""Code: find a small function from examples. The thought finds slope and offset; tests decide."""

from __future__ import annotations

import json
import random

from teacher.families.exercise import FULL, SHORT, SINGLE, Exercise, Hand, Size, Worked

NAME = "functions"
DOMAIN = "code"
VERIFIER = "tests"
Pair = tuple[int, int]
HIDDEN = 3
"""Tests beside the examples that the question shows."""


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return f(x) = a * x + b from three examples; from 0 and 1 where it is to be short, a * x from 1 for one step."""
    while True:
        slope, offset = rng.randint(2, 9), rng.randint(-9, 9)
        inputs = sorted(rng.sample(range(1, 11), 3))
        if size == SHORT:
            offset, inputs = abs(offset), [0, 1]
        elif size == SINGLE:
            slope, offset, inputs = rng.randint(2, 99), 0, [1]
        if all(0 <= slope * x + offset <= 99 for x in inputs):
            break
    pairs = [(x, slope * x + offset) for x in inputs]
    unseen = rng.sample([x for x in range(-5, 30) if x not in inputs], HIDDEN)
    tests = [{"args": [x], "result": slope * x + offset} for x in [*inputs, *unseen]]
    shown = ", ".join(f"{x} -> {y}" for x, y in pairs)
    reference = json.dumps({"function": "f", "tests": tests})
    work = {SINGLE: _step, SHORT: _two_steps, FULL: _chain}[size]
    return Exercise(f"Write a Python function f with {shown}.", reference, lambda hand: work(pairs, hand))


def _step(pairs: list[Pair], hand: Hand) -> Worked:
    slope = hand.number(pairs[0][1])
    return [f"{pairs[0][1]} / 1 = {slope}"], _program(f"{slope} * x")


def _two_steps(pairs: list[Pair], hand: Hand) -> Worked:
    (_, offset), (_, after) = pairs
    slope = hand.number(after - offset)
    return [f"{after} - {offset} = {slope}"], _program(f"{slope} * x + {offset}")


def _chain(pairs: list[Pair], hand: Hand) -> Worked:
    (x0, y0), (x1, y1) = pairs[:2]
    rise, run = hand.number(y1 - y0), x1 - x0
    slope = hand.number(rise // run)
    start = hand.number(slope * x0)
    steps = [f"{y1} - {y0} = {rise}", f"{x1} - {x0} = {run}", f"{rise} / {run} = {slope}", f"{slope} * {x0} = {start}"]
    offset = hand.number(abs(y0 - start))
    if y0 >= start:
        return [*steps, f"{y0} - {start} = {offset}"], _program(f"{slope} * x + {offset}")
    return [*steps, f"{start} - {y0} = {offset}"], _program(f"{slope} * x - {offset}")


def _program(rule: str) -> str:
    return f"def f(x):\n    return {rule}"
