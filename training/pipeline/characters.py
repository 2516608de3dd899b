"""Long roles and long requests for programs: what is most easily taken for one another.

A role that is to be free of every rule and a harmless one are built of the same parts in the same order, so
that length and build tell nothing. Requests for programs are harmless, but for some that carry an attack.
"""

from __future__ import annotations

import random

from pipeline.grammar import Grammar, alternatives, load
from pipeline.rows import Row

LONGEST = 8000
_BUILDS = ("\n", "\n\n", " ", " ", " ", "numbers", "dashes")


def roles(rng: random.Random, *, english: int, others: int) -> list[Row]:
    """Attacks and harmless roles, as many of each: `english`, and `others` in each other language."""
    vocabulary = load("en/vocabulary.yaml", "en/contexts.yaml")["slots"]
    first = load("other_languages.yaml")["languages"]
    rows = []
    for language, own in load("characters.yaml")["languages"].items():
        slots = {
            **vocabulary,
            **first.get(language, {}),
            **{key: alternatives(value) for key, value in own.items()},
        }
        count = english if language == "en" else others
        for label in (1, 0):
            for _ in range(count):
                text = _role(slots, rng, label)
                rows.append(Row(text, label, f"made:role:{language}", language, f"role:{label}", "character"))
    return rows


def _role(slots: dict[str, list[str]], rng: random.Random, label: int) -> str:
    """One role: an opening, sentences of the frame among those of its class, and what it is asked."""
    # One name throughout, as in texts that people write.
    grammar = Grammar({**slots, "name": [rng.choice(slots["name"])]}, rng)
    telling, last = ("free", "ask") if label else ("kind", "end")
    size = int(2 * 15 ** rng.random())  # sentences of its class: 2 to 29, short ones more often
    rest = _drawn(slots[telling], size, rng) + _drawn(slots["frame"], rng.randint(0, size + 2), rng)
    rng.shuffle(rest)
    sentences = [_sentence(grammar.expand(part)) for part in ("{open}", *rest)]
    if rng.random() < 0.7:
        sentences.append(_sentence(grammar.expand("{" + last + "}")))
    text = _built(sentences, rng)
    return (text.lower() if rng.random() < 0.1 else text)[:LONGEST]


def _drawn(templates: list[str], count: int, rng: random.Random) -> list[str]:
    """So many templates, each at most twice."""
    return rng.sample([*templates, *templates], min(count, 2 * len(templates)))


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!", ":", "。")) else text + "."


def _built(sentences: list[str], rng: random.Random) -> str:
    build = rng.choice(_BUILDS)
    if build == "numbers":
        return sentences[0] + "\n" + "\n".join(f"{n}. {one}" for n, one in enumerate(sentences[1:], start=1))
    if build == "dashes":
        return sentences[0] + "\n- " + "\n- ".join(sentences[1:])
    if build != " ":
        return build.join(sentences)
    text = sentences[0]
    for one in sentences[1:]:
        text += ("\n\n" if rng.random() < 0.08 else " ") + one
    return text


def requests(rng: random.Random, *, benign: int, attacks: int) -> list[Row]:
    """Requests for programs in each other language: so many harmless ones, so many that carry an attack."""
    shared = load("en.yaml")["slots"]
    first = load("other_languages.yaml")["languages"]
    data = load("other_languages_coding.yaml")
    rows = []
    for language, own in data["languages"].items():
        slots = {**shared, **first[language], **{key: alternatives(value) for key, value in own.items()}}
        grammar = Grammar(slots, rng)
        for label, kind, count in ((0, "benign", benign), (1, "attack", attacks)):
            frames = data["frames"][kind]
            for index in range(count):
                text = _tidy(grammar.expand(frames[index % len(frames)]))
                rows.append(
                    Row(text, label, f"made:request:{language}", language, f"request:{kind}", "request")
                )
    return rows


def _tidy(text: str) -> str:
    """Sentences as people write them: no second stop after one, a capital after it."""
    for wrong, right in (("?.", "?"), ("!.", "!"), ("।.", "।"), ("。.", "。"), ("..", "."), (").", ")")):
        text = text.replace(wrong, right)
    parts = text.split(". ")
    return ". ".join(part[:1].upper() + part[1:] for part in parts)
