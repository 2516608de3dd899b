"""Templates with slots, expanded at random: how most of the made rows come to be.

`{name}` is one alternative of the slot `name`; `{a|b|}` is one of the alternatives given in place (the last
one is empty); both may hold slots themselves. `{{` and `}}` are braces. Some slots are drawn rather than
listed: `{num}` and `{d}` (numbers), `{noise64}` (base64 of nothing in particular), `{suffix}` (the debris of
adversarial suffixes), `{word}` (a made-up word), `{mail2}` (a harmless address).
"""

from __future__ import annotations

import base64
import random
import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
_SLOT = re.compile(r"\{([^{}]*)\}")
_DEEPEST = 40
_DEBRIS = (
    "==",
    "!!",
    "}}",
    "({{",
    "[(",
    "~~",
    "\\+",
    "--",
    "<!",
    ");",
    "%@",
    "|>",
    "::",
    "/*",
    "$$",
    "]]",
    "^^",
    "#",
)


class Grammar:
    """Templates with slots, expanded at random."""

    def __init__(self, slots: Mapping[str, Sequence[str]], rng: random.Random) -> None:
        self._slots = slots
        self._rng = rng

    def expand(self, template: str) -> str:
        """The template with every slot filled; neighbouring spaces become one.

        Raises:
            KeyError: when a slot is named that does not exist.
            ValueError: when a slot contains itself.
        """
        text = _shielded(template)
        for _ in range(_DEEPEST):
            filled = _SLOT.sub(lambda match: _shielded(self._drawn(match[1])), text)
            if filled == text:
                break
            text = filled
        else:
            raise ValueError(f"a slot of {template!r} contains itself")
        text = text.replace("\x01", "{").replace("\x02", "}").replace("\x04", "|")
        return re.sub(r"(?<=[^\s]) {2,}", " ", text).strip(" ")

    def _drawn(self, name: str) -> str:
        if "|" in name:
            return self._rng.choice(name.split("|"))
        if name in _MADE:
            return _MADE[name](self._rng)
        return _without_bars(self._rng.choice(self._slots[name]))


def _without_bars(text: str) -> str:
    """The text with bars outside braces marked: they set nothing apart where the text is put."""
    if "|" not in text:
        return text
    letters, depth = [], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        letters.append("\x04" if letter == "|" and depth == 0 else letter)
    return "".join(letters)


def _shielded(template: str) -> str:
    """The template with doubled braces outside slots marked as braces."""
    if "{{" not in template and "}}" not in template:
        return template
    letters, depth, place = [], 0, 0
    while place < len(template):
        letter = template[place]
        if depth == 0 and template[place : place + 2] in {"{{", "}}"}:
            letters.append("\x01" if letter == "{" else "\x02")
            place += 2
            continue
        depth += (letter == "{") - (letter == "}")
        letters.append(letter)
        place += 1
    return "".join(letters)


def alternatives(value: str | Sequence[str]) -> list[str]:
    """The alternatives of a slot: a list, or a string of them set apart by line breaks or by ` | `.

    What stands in braces is not set apart; where there are line breaks only they count.
    """
    if not isinstance(value, str):
        return [str(one) for one in value]
    if "\n" in value:
        return value.split("\n")
    parts, depth, last = [], 0, 0
    for place, letter in enumerate(value):
        depth += (letter == "{") - (letter == "}")
        if letter == "|" and depth == 0 and value[place - 1 : place] in {" ", ""}:
            parts.append(value[last:place])
            last = place + 1
    parts.append(value[last:])
    return [_one_space(part) for part in parts]


def _one_space(part: str) -> str:
    """The alternative without the spaces around the bar; a space of its own is written twice."""
    return (" " if part.startswith("  ") else "") + part.strip() + (" " if part.endswith("  ") else "")


def load(*names: str) -> dict:
    """Template files, merged: their slots as lists of alternatives, their other keys as they stand."""
    merged: dict = {"slots": {}}
    for name in names:
        data = yaml.safe_load((TEMPLATES / name).read_text(encoding="utf-8"))
        merged["slots"].update({key: alternatives(value) for key, value in data.pop("slots", {}).items()})
        for key, value in data.items():
            merged[key] = {**merged[key], **value} if isinstance(merged.get(key), dict) else value
    return merged


def _noise64(rng: random.Random) -> str:
    raw = "".join(rng.choice(string.ascii_lowercase + "   ") for _ in range(rng.randint(9, 60)))
    return base64.b64encode(raw.encode()).decode()


def _word(rng: random.Random) -> str:
    syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(1, 4))]
    return "".join(syllables) + rng.choice(["", "n", "s", "r", "x"])


def _suffix(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(4, 14)):
        parts.append(_word(rng).title() if rng.random() < 0.3 else _word(rng))
        if rng.random() < 0.6:
            parts.append(rng.choice(_DEBRIS))
    return rng.choice([" ", " ", ""]).join(parts)


_MADE: Mapping[str, Callable[[random.Random], str]] = {
    "num": lambda rng: str(rng.randint(2, 9999)),
    "d": lambda rng: str(rng.randint(1, 9)),
    "noise64": _noise64,
    "suffix": _suffix,
    "word": _word,
    "mail2": lambda rng: f"{_word(rng)}@{_word(rng)}.example",
}
