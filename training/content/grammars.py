"""Rows of the grammars in `templates/grammar_*.yaml`: harmful texts, and harmless twins of the same words.

A slot is a list of alternatives, `{a|b}` a choice in place, both may hold slots. Every frame that asks for a
harmful act asks for harmless ones as often; every harmful act stands in frames that only speak about it; and
whoever is named in a hateful sentence is named in as many neutral, kind and contradicting ones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pipeline.grammar import alternatives

from content.corpus import CATEGORIES, ContentRow, any_of_abuse, varied
from stanchion.detectors.content_model import ANY
from stanchion.redteam.mutators import MUTATORS

TEMPLATES = Path(__file__).resolve().parent / "templates"
ACTS, ABOUT, SAFE = 500, 220, 4400  # English requests of a category, texts about its acts, harmless requests
SAYINGS, EACH = 260, 45  # rows of an English family: at least, and more for each of its templates
OTHER = 0.2  # of these numbers, for every other language
_SLOT = re.compile(r"\{([^{}]*)\}")
_DISGUISES = ("leet", "spacing", "typo", "glued")
_DEEPEST = 60


class Choices:
    """Templates filled at random, innermost braces first."""

    def __init__(self, slots: Mapping[str, Sequence[str]], rng: random.Random) -> None:
        self._slots, self._rng = slots, rng

    def expand(self, template: str, **given: str) -> str:
        """The template without braces; `given` goes before the slots.

        Raises:
            ValueError: when a slot contains itself.
        """
        text = template
        for _ in range(_DEEPEST):
            filled = _SLOT.sub(lambda match: self._drawn(match[1], given), text)
            if filled == text:
                return " ".join(text.split())
            text = filled
        raise ValueError(f"a slot of {template!r} contains itself")

    def _drawn(self, name: str, given: Mapping[str, str]) -> str:
        if "|" in name:
            return self._rng.choice(name.split("|"))
        return given[name] if name in given else self._rng.choice(self._slots[name])


def grammar_rows(rng: random.Random) -> list[ContentRow]:
    """The rows of every file, in order."""
    rows: list[ContentRow] = []
    for path in sorted(TEMPLATES.glob("grammar_*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        languages = {"en": data} if path.stem == "grammar_en" else data
        for language, found in languages.items():
            slots = {name: alternatives(value) for name, value in found["slots"].items()}
            rows += _of_language(found, language, Choices(slots, rng), rng)
    return rows


def _of_language(data: dict, language: str, choices: Choices, rng: random.Random) -> Iterator[ContentRow]:
    share = 1.0 if language == "en" else OTHER
    yield from _requests(data, language, choices, rng, share)
    for name, family in data["families"].items():
        templates = family["templates"]
        count = int(share * family.get("times", 1.0) * max(SAYINGS, EACH * len(templates)))
        positive = frozenset(family.get("positive", ()))
        unknown = frozenset(family.get("unknown", ())) | any_of_abuse(set(positive))
        for index in range(count):
            text = varied(choices.expand(templates[index % len(templates)]), rng)
            if family.get("mutate"):
                text = disguised(text, rng)
            yield ContentRow(
                text,
                (positive | {ANY}) if positive else positive,
                unknown - positive,
                f"made:{name}",
                language,
            )


def _requests(
    data: dict, language: str, choices: Choices, rng: random.Random, share: float
) -> Iterator[ContentRow]:
    nothing: frozenset[str] = frozenset()
    for category, acts in data["acts"].items():
        for index in range(int(share * ACTS)):
            act = choices.expand(acts[index % len(acts)])
            text = varied(choices.expand(rng.choice(data["ask"]), act=act), rng)
            unknown = frozenset(CATEGORIES) - {category}
            yield ContentRow(text, frozenset({category, ANY}), unknown, "made:act", language)
        for index in range(int(share * ABOUT)):
            act = choices.expand(acts[index % len(acts)])
            text = varied(choices.expand(rng.choice(data["about"]), act=act), rng)
            yield ContentRow(text, nothing, nothing, "made:act_about", language)
    for index in range(int(share * SAFE)):
        act = choices.expand(data["safe_acts"][index % len(data["safe_acts"])])
        frames = data["about"] if index % 6 == 0 else data["ask"]
        text = varied(choices.expand(rng.choice(frames), act=act), rng)
        yield ContentRow(text, nothing, nothing, "made:act_safe", language)


def disguised(text: str, rng: random.Random) -> str:
    """The text as people write to get past a filter: figures for letters, spaces, slips, no spaces."""
    kind = rng.choice(_DISGUISES)
    if kind in MUTATORS:
        words = text.split()
        chosen = set(rng.sample(range(len(words)), max(1, len(words) // 2)))
        return " ".join(MUTATORS[kind](w, rng) if i in chosen else w for i, w in enumerate(words))
    if kind == "glued":
        place = rng.randrange(max(1, text.count(" ")))
        parts = text.split(" ")
        return " ".join([*parts[:place], "".join(parts[place : place + 2]), *parts[place + 2 :]])
    letters = list(text)
    for _ in range(max(1, len(text) // 30)):
        place = rng.randrange(1, max(2, len(letters) - 1))
        if rng.random() < 0.5:
            del letters[place]
        else:
            letters[place - 1 : place + 1] = reversed(letters[place - 1 : place + 1])
    return "".join(letters)
