"""Logic: knights, who tell the truth, and knaves, who lie. The thought tries one assignment after another."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from teacher.families.exercise import FULL, TURNING, Exercise, Hand, Size, Worked
from teacher.families.ordering import NAMES

NAME = "knights"
DOMAIN = "logic"
VERIFIER = "knights"

World = tuple[bool, ...]
"""For each person, whether they are a knight."""
Claim = tuple[str, Callable[[World], bool]]


def draw(rng: random.Random, size: Size = FULL) -> Exercise:
    """Return three people with a claim each and one solution; two where it is not to be full."""
    count = 3 if size == FULL else 2
    while True:
        people = rng.sample(NAMES, count)
        claims = [_claim(rng, people, speaker) for speaker in range(count)]
        worlds = [world for world in _worlds(count) if _liar(world, claims) is None]
        if len(worlds) == 1:
            break
    told = ", ".join(f"{people[speaker]} says {text}" for speaker, (text, _) in enumerate(claims))
    return Exercise(
        f"On the island {told}. Who is a knight and who is a knave?", _told(people, worlds[0]), _working(people, claims)
    )


def _worlds(count: int) -> list[World]:
    return list(itertools.product((True, False), repeat=count))


def _claim(rng: random.Random, people: list[str], speaker: int) -> Claim:
    others = [place for place in range(len(people)) if place != speaker]
    kind = rng.random() < 0.5
    word = "knight" if kind else "knave"
    if len(others) == 1 or rng.random() < 0.5:
        about = rng.choice(others)
        if len(others) == 1 and rng.random() < 0.5:
            return f"we both are {word}s", lambda world: all(told == kind for told in world)
        return f"{people[about]} is a {word}", lambda world: world[about] == kind
    first, second = rng.sample(others, 2)
    return (
        f"{people[first]} and {people[second]} are {word}s",
        lambda world: world[first] == kind and world[second] == kind,
    )


def _liar(world: World, claims: list[Claim]) -> int | None:
    """The first person whose claim does not fit what they are, None where all fit."""
    for speaker, (_, holds) in enumerate(claims):
        if holds(world) != world[speaker]:
            return speaker
    return None


def _told(people: list[str], world: World) -> str:
    told = (f"{name} is a {'knight' if knight else 'knave'}" for name, knight in zip(people, world, strict=True))
    return f"So {', '.join(told)}."


def _working(people: list[str], claims: list[Claim]) -> Callable[[Hand], Worked]:
    def work(hand: Hand) -> Worked:
        steps: list[str] = []
        world: World = ()
        for world in _worlds(len(people)):
            tried = " ".join(
                f"{name} {'knight' if told else 'knave'}" for name, told in zip(people, world, strict=True)
            )
            steps.append(f"{TURNING if steps else 'Try '}{tried}")
            for speaker, (_, holds) in enumerate(claims):
                true = hand.yes(holds(world))
                fits = true == world[speaker]
                steps[-1] += f", {people[speaker]} {'true' if true else 'false'}" + ("" if fits else " no")
                if not fits:
                    break
            else:
                steps[-1] += " yes"
                break
        return steps, _told(people, world)

    return work
