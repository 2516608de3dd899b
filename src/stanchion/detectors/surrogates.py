"""Lone surrogates: halves of UTF-16 pairs that JSON can bring in and no UTF-8 can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONE = re.compile("[\ud800-\udfff]")


def replaced(text: str) -> str:
    """The text with U+FFFD for each lone surrogate; offsets stay."""
    return text if text.isascii() else _LONE.sub("\ufffd", text)


def all_replaced(texts: Iterable[str]) -> tuple[str, ...]:
    """The same for several texts."""
    return tuple(map(replaced, texts))
