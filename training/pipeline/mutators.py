"""Simple obfuscations, applied alike to attacks and to harmless rows, so that being odd proves nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pipeline.rows import Row
from stanchion.redteam.mutators import MUTATORS


def squeezed(text: str, rng: random.Random) -> str:
    """No spaces at all."""
    return "".join(text.split())


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


OWN = (quoted, squeezed, misspelt, shouted, chopped)
SHARED = (
    "homoglyph", "zero_width", "full_width", "tag", "leet", "spacing", "base64", "hex", "url", "entity",
    "reversed", "combining", "alternating_case", "unicode_escape", "quoted_printable", "stacked",
)  # fmt: skip


def augmented(rows: Sequence[Row], rng: random.Random, *, pairs: int) -> list[Row]:
    """Mutated copies of random rows of up to 400 characters, in pairs: the same disguise for both labels.

    Half of the disguises are those of this module, half those of `stanchion.redteam.mutators`. A disguise
    thus proves nothing, and what the detector reads of a disguised text is learnt from both sides.
    """
    shared = [MUTATORS[name] for name in SHARED]
    pools = [[row for row in rows if row.label == label and 12 < len(row.text) <= 400] for label in (0, 1)]
    made = []
    for index in range(pairs):
        mutator = OWN[index // 2 % len(OWN)] if index % 2 else shared[index // 2 % len(shared)]
        for pool in pools:
            row = rng.choice(pool)
            made.append(replace(row, text=mutator(row.text, rng), source="made:mutated", group=row.source))
    return made
