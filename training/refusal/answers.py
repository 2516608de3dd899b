"""Answers made from templates: refusals, evasions, partial refusals and compliances in seventeen languages.

Every fourth template of each kind is held out: it teaches nothing, and `bench/detection` reports on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

Part = Literal["taught", "held"]
_FOLDER = Path(__file__).resolve().parent
KINDS = {"refusals": 1, "partial": 1, "evasions": 1, "compliances": 0}


@dataclass(frozen=True)
class Answer:
    """A made answer; `label` 1 = refuses, in full, in part or by evading."""

    text: str
    label: int
    language: str
    kind: str


def languages() -> dict[str, dict[str, list[str]]]:
    """Templates by language."""
    english = yaml.safe_load((_FOLDER / "templates_en.yaml").read_text(encoding="utf-8"))
    others = yaml.safe_load((_FOLDER / "templates_other.yaml").read_text(encoding="utf-8"))
    return {"en": english, **others}


def lectures() -> dict[str, list[str]]:
    """English templates around acts that are wrong: lectures, characters who decline, help with a caution."""
    return yaml.safe_load((_FOLDER / "templates_lectures.yaml").read_text(encoding="utf-8"))


def answers(part: Part, *, seed: int, each: int) -> Iterator[Answer]:
    """`each` answers of every template of a part, with topics and work drawn from the seed."""
    rng = random.Random(seed)
    for language, given in languages().items():
        topics, work = _of(given["topics"], part), _of(given["work"], part)
        for kind, label in KINDS.items():
            for template in _of(given.get(kind, ()), part):
                for text in dict.fromkeys(_filled(template, topics, work, rng) for _ in range(each)):
                    yield Answer(text, label, language, kind)
        for template in _of(given.get("voices", ()), part):
            refusals, compliances = _of(given["refusals"], part), _of(given["compliances"], part)
            for _ in range(each):
                refusal = _filled(rng.choice(refusals), topics, work, rng)
                other = _filled(rng.choice(compliances), topics, work, rng)
                yield Answer(template.format(r=refusal, c=other), 0, language, "voices")


def about_acts(part: Part, *, seed: int, each: int) -> Iterator[Answer]:
    """The same of the English templates around acts; their kinds are `lectures` and `cautions`."""
    rng = random.Random(seed)
    given = lectures()
    topics, work = _of(given["topics"], part), _of(given["work"], part)
    for kind, name in (("refusals", "lectures"), ("compliances", "cautions")):
        for template in _of(given[kind], part):
            for text in dict.fromkeys(_filled(template, topics, work, rng) for _ in range(each)):
                yield Answer(text, KINDS[kind], "en", name)


def _of(templates: Sequence[str], part: Part) -> list[str]:
    """A part of the templates; a list too short to share serves both."""
    kept = [each for index, each in enumerate(templates) if (index % 4 == 3) == (part == "held")]
    return kept or list(templates)


def _filled(template: str, topics: Sequence[str], work: Sequence[str], rng: random.Random) -> str:
    topic = rng.choice(topics)
    text = template.format(t=topic, w=rng.choice(work).format(t=topic), r="", c="")
    return text[:1].upper() + text[1:] if text[:1].islower() else text
