"""Disguises for texts: one sentence, many spellings and encodings, drawn from a seed.

A mutator changes how a text is written, not what it says. The same text and the same state of the generator
give the same result. Training, benches and attack runs use them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from stanchion.redteam import mutators_encoding as encoding
from stanchion.redteam import mutators_spelling as spelling

Kind = Literal["spelling", "invisible", "encoding", "order", "stack"]


class Mutator(msgspec.Struct, frozen=True, kw_only=True):
    """A named disguise. `kind` says what it works on; `stack` is a row of others.

    `ascii_only` ones change nothing in text of other scripts, or little.
    """

    name: str
    kind: Kind
    change: Callable[[str, random.Random], str]
    ascii_only: bool = False

    def __call__(self, text: str, rng: random.Random) -> str:
        """The text in disguise; choices come from `rng`."""
        return self.change(text, rng)

    @property
    def description(self) -> str:
        """What it does, in one sentence."""
        return (self.change.__doc__ or "").strip().partition("\n")[0]


def stack(*mutators: Mutator) -> Mutator:
    """A mutator that applies others in a row, the first one first.

    Raises:
        ValueError: without any.
    """
    if not mutators:
        raise ValueError("stack() needs at least one mutator")

    def change(text: str, rng: random.Random) -> str:
        """Several disguises, one over the other."""
        for mutator in mutators:
            text = mutator(text, rng)
        return text

    name = "+".join(mutator.name for mutator in mutators)
    return Mutator(name=name, kind="stack", change=change, ascii_only=any(m.ascii_only for m in mutators))


def stacked(text: str, rng: random.Random) -> str:
    """Two disguises: a spelling or an encoding, and an encoding over it."""
    first, second = draw_stack(rng)
    return second(first(text, rng), rng)


def draw_stack(rng: random.Random) -> tuple[Mutator, Mutator]:
    """The two mutators that `stacked` would apply next, the inner one first."""
    first = rng.choice(_INNER)
    return MUTATORS[first], MUTATORS[rng.choice([name for name in _OUTER if name != first])]


_INNER = ("homoglyph", "zero_width", "full_width", "leet", "spacing", "base64", "hex", "url", "entity")
_OUTER = ("base64", "hex", "url", "entity", "unicode_escape", "quoted_printable")


def _all() -> list[Mutator]:
    made: list[Mutator] = []

    def add(name: str, kind: Kind, change: Callable[[str, random.Random], str], latin: bool = False) -> None:
        made.append(Mutator(name=name, kind=kind, change=change, ascii_only=latin))

    add("homoglyph", "spelling", spelling.homoglyph, latin=True)
    add("full_width", "spelling", spelling.full_width, latin=True)
    add("mathematical", "spelling", spelling.mathematical, latin=True)
    add("small_capitals", "spelling", spelling.small_capitals, latin=True)
    add("combining", "spelling", spelling.combining)
    add("leet", "spelling", spelling.leet, latin=True)
    add("spacing", "spelling", spelling.spacing)
    add("alternating_case", "spelling", spelling.alternating_case, latin=True)
    add("zero_width", "invisible", spelling.zero_width)
    add("tag", "invisible", spelling.tag, latin=True)
    add("variation_selector", "invisible", spelling.variation_selector)
    add("bidi", "order", spelling.bidi)
    add("reversed", "order", spelling.reversed_text)
    add("reversed_words", "order", spelling.reversed_words)
    add("base64", "encoding", encoding.base64_text)
    add("base32", "encoding", encoding.base32_text)
    add("base85", "encoding", encoding.base85_text)
    add("hex", "encoding", encoding.hexadecimal)
    add("binary", "encoding", encoding.binary)
    add("character_codes", "encoding", encoding.character_codes)
    add("rot13", "encoding", encoding.rot13, latin=True)
    add("url", "encoding", encoding.url)
    add("entity", "encoding", encoding.entity)
    add("unicode_escape", "encoding", encoding.unicode_escape)
    add("json_string", "encoding", encoding.json_string)
    add("quoted_printable", "encoding", encoding.quoted_printable)
    add("stacked", "stack", stacked)
    return made


MUTATORS: Mapping[str, Mutator] = MappingProxyType({mutator.name: mutator for mutator in _all()})
"""All mutators by name; for a list, `sorted(MUTATORS)`."""
