"""Canaries: values that nobody could say by chance, planted where a target must not repeat them.

A canary is minted per case from the run's seed, so a leak names its case and cannot come from training data.
Until then a private-use mark stands for it, so that a case's identity does not depend on the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # 32 of them, none that is taken for another
_MARK = "\ue0c5{}\ue0c6"


def marks(forms: Mapping[str, str]) -> dict[str, str]:
    """What templates put in for `{{ canary.<name> }}` until the case is known."""
    return {name: _MARK.format(name) for name in forms}


def mint(forms: Mapping[str, str], *, seed: int, case_id: str) -> dict[str, str]:
    """The canaries of one case: every `#` of a form becomes one of 32 letters (5 bits)."""
    return {name: _mint(form, f"{seed}\0{case_id}\0{name}") for name, form in forms.items()}


def plant(text: str, canaries: Mapping[str, str]) -> str:
    """The text with every mark replaced by its canary."""
    if "\ue0c5" not in text:
        return text
    for name, value in canaries.items():
        text = text.replace(_MARK.format(name), value)
    return text


def plant_all(value: Any, canaries: Mapping[str, str]) -> Any:
    """The same for every text inside lists and mappings."""
    if isinstance(value, str):
        return plant(value, canaries)
    if isinstance(value, dict):
        return {key: plant_all(item, canaries) for key, item in value.items()}
    return [plant_all(item, canaries) for item in value] if isinstance(value, list | tuple) else value


def _mint(form: str, key: str) -> str:
    stream = int.from_bytes(hashlib.shake_256(key.encode("utf-8", "surrogatepass")).digest(form.count("#")))
    letters: list[str] = []
    for character in form:
        if character == "#":
            letters.append(_LETTERS[stream & 31])
            stream >>= 8
        else:
            letters.append(character)
    return "".join(letters)
