"""Simple obfuscations, applied alike to attacks and to harmless rows, so that being odd proves nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pipeline.rows import Row

_LEET = str.maketrans({"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"})


def spaced(text: str, rng: random.Random) -> str:
    """A space, a hyphen or a dot between all letters."""
    return rng.choice([" ", "-", "."]).join(text)


def squeezed(text: str, rng: random.Random) -> str:
    """No spaces at all."""
    return "".join(text.split())


def leet(text: str, rng: random.Random) -> str:
    """Some letters as digits."""
    return "".join(c.translate(_LEET) if rng.random() < 0.4 else c for c in text.lower())


def misspelt(text: str, rng: random.Random) -> str:
    """Neighbouring letters swapped, dropped or doubled."""
    letters = list(text)
    for _ in range(max(len(letters) // 18, 1)):
        place = rng.randrange(max(len(letters) - 1, 1))
        match rng.randrange(3):
            case 0 if place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
            case 1:
                letters[place] = ""
            case _:
                letters[place] *= 2
    return "".join(letters)


def shouted(text: str, rng: random.Random) -> str:
    """Capitals, and more of them at the end."""
    return text.upper() + "!" * rng.randrange(4)


def chopped(text: str, rng: random.Random) -> str:
    """A line break or a mark inside some words."""
    mark = rng.choice(["-", " ", "\n", "*", "_"])
    return "".join(c + mark if c.isalpha() and rng.random() < 0.12 else c for c in text)


def quoted(text: str, rng: random.Random) -> str:
    """The whole text in quotation marks."""
    left, right = rng.choice(['""', "''", "\u201c\u201d", "\u00ab\u00bb", "``"])
    return left + text + right


MUTATORS = (quoted, spaced, squeezed, leet, misspelt, shouted, chopped)


def augmented(rows: Sequence[Row], rng: random.Random, *, attacks: int, benign: int) -> list[Row]:
    """Mutated copies of random rows of up to 400 characters."""
    made = []
    for label, count in ((1, attacks), (0, benign)):
        pool = [row for row in rows if row.label == label and len(row.text) <= 400]
        for index in range(count):
            row = rng.choice(pool)
            text = MUTATORS[index % len(MUTATORS)](row.text, rng)
            made.append(replace(row, text=text, source="made:mutated", group=row.source))
    return made
