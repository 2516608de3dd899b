"""Words that were pulled apart or spelled with digits: `i g n o r e`, `i.g.n.o.r.e`, `1gn0r3`."""

from __future__ import annotations

import re
from collections import Counter

from stanchion.detectors.transforms.offsets import OffsetMap, Rewriter
from stanchion.detectors.transforms.triggers import Trigger

_LETTER = r"[A-Za-z0-9@$!]"
_BREAK = r"[ \t\r\n.\-_*~|/,+]{1,3}"
_PULLED_APART = re.compile(rf"(?<![A-Za-z0-9@$!]){_LETTER}(?:{_BREAK}{_LETTER}(?![A-Za-z0-9@$!])){{3,}}")
_BETWEEN = re.compile(_BREAK)
_TOKEN = re.compile(r"[A-Za-z0-9@$!]{2,}")
_TOKEN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@$!")
_LONGEST_TOKEN = 24  # longer ones are keys, digests or encoded text
_MIXED = re.compile(r"[A-Za-z][0-9@$!]|[0-9@$!][A-Za-z]")
_LEET = str.maketrans("0123456789@$!", "oizeasgtbgasi")
_PLAIN_MIX = re.compile(r"[0-9]+(?:st|nd|rd|th|am|pm|[A-Za-z])?|[A-Za-z]{1,2}[0-9]+|[A-Za-z]+!+")


def respelled(text: str, triggers: Trigger, signals: set[str]) -> tuple[str, OffsetMap | None]:
    """The text with such words put together; adds `spaced` and `leet` to `signals` where they changed it."""
    offsets: OffsetMap | None = None
    result = text
    if triggers & Trigger.SPACED:
        result, offsets = joined(text)
        if offsets is not None:
            signals.add("spaced")
    letters = unleeted(result)
    if letters != result:
        signals.add("leet")
    return letters, offsets


def joined(text: str) -> tuple[str, OffsetMap | None]:
    """Runs of four or more single letters as words; of two kinds of breaks, the rarer ends a word."""
    rewriter = None
    for run in _PULLED_APART.finditer(text):
        letters = sum(character.isalpha() for character in run.group())
        if letters < 3:
            continue
        rewriter = rewriter or Rewriter(text)
        breaks = list(_BETWEEN.finditer(run.group()))
        usual = Counter(found.group() for found in breaks).most_common(1)[0][0]
        for found in breaks:
            start, end = run.start() + found.start(), run.start() + found.end()
            rewriter.replace(start, end, "" if found.group() == usual else " ")
    return (text, None) if rewriter is None else rewriter.finish()


def unleeted(text: str) -> str:
    """Tokens that mix letters with digits or signs, with letters in their place; offsets stay.

    `1` reads as i, two of them as ll. Ordinals, units, names such as `b2`, closing exclamation marks and
    tokens too long for a word stay.
    """
    parts: list[str] = []
    done = 0
    for mixed in _MIXED.finditer(text):
        if mixed.start() < done:
            continue
        start = _token_start(text, mixed.start(), done)
        token = _TOKEN.match(text, start)
        if token is not None:
            parts.append(text[done:start])
            parts.append(_spelled(token.group()))
            done = token.end()
    return "".join([*parts, text[done:]]) if parts else text


def _token_start(text: str, position: int, least: int) -> int:
    while position > least and text[position - 1] in _TOKEN_CHARACTERS:
        position -= 1
    return position


def _spelled(token: str) -> str:
    if len(token) > _LONGEST_TOKEN or _PLAIN_MIX.fullmatch(token):
        return token
    body = token.rstrip("!")
    return body.replace("11", "ll").translate(_LEET) + token[len(body) :]
