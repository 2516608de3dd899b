"""What a decoder gives, and what counts as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Edit(NamedTuple):
    """Put `text` in the place of `[start, end)`; `unit` as in `Rewriter.replace`.

    `is_cut` marks what was not decoded because the run is longer than the limit.
    """

    start: int
    end: int
    text: str
    unit: tuple[int, int] | None
    decoder: str
    is_cut: bool = False


OPAQUE = "opaque"  # the decoder of a run that is too long to be decoded, and whose beginning is no text
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\t\r\n\u00a0-\U0010ffff]|\ufffd")


def readable(data: bytes) -> str | None:
    """The text that bytes are, or None when they are not text: UTF-8, or UTF-16 as PowerShell writes it."""
    if len(data) >= 8 and not any(data[1:64:2]) and all(data[0:64:2]):
        text = data[: len(data) // 2 * 2].decode("utf-16-le", "replace")
    else:
        text = _utf8(data)
    return text if text and _UNPRINTABLE.search(text) is None else None


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        is_cut_short = error.end >= len(data) and error.start >= len(data) - 3
        return data[: error.start].decode("utf-8") if is_cut_short else "\ufffd"


def cut(match: re.Match[str], max_run: int, decoder: str, *, is_text: bool) -> Iterator[Edit]:
    """The part of a run beyond the limit, if there is one; `is_text` if what stands before it is text."""
    if match.end() - match.start() > max_run:
        name = decoder if is_text else OPAQUE
        yield Edit(match.start() + max_run, match.end(), "", None, name, is_cut=True)
