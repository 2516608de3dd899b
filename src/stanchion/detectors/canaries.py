"""Canaries: marks that are planted in what must not get out, and found again however they are written.

A mark is found as it stands, in other case, spaced out, cut by punctuation, reversed, in rot13, hexadecimal,
base32, base64, percent or decimal codes, and in part.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec

_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # no letters or digits that are taken for one another
_GROUPS, _GROUP = 4, 5  # 20 characters of 30: 98 bits
_PARTIAL = 0.6  # share of a mark that is a part of it
_SHORTEST_PART = 8


class Sighting(msgspec.Struct, frozen=True):
    """A mark that was found: its index, its place in the text, how it was written, its share in [0, 1]."""

    index: int
    start: int
    end: int
    how: str
    share: float


def make_canary(seed: str, *, session_id: str = "", index: int = 0) -> str:
    """A mark that cannot be guessed without the seed, the same for the same arguments, such as `K7QM2-...`.

    HMAC-SHA256 of session and index under the seed, in an alphabet of 30 signs: 98 bits.
    """
    raw = hmac.new(seed.encode(), f"canary:{session_id}:{index}".encode(), hashlib.sha256).digest()
    value = int.from_bytes(raw, "big")
    signs = []
    for _ in range(_GROUPS * _GROUP):
        value, rest = divmod(value, len(_ALPHABET))
        signs.append(_ALPHABET[rest])
    return "-".join("".join(signs[i : i + _GROUP]) for i in range(0, len(signs), _GROUP))


def find(text: str, canaries: Sequence[str]) -> list[Sighting]:
    """Every mark in every writing of it, by position."""
    letters, places = letters_of(text)
    digits: tuple[str, list[int]] | None = None
    found: list[Sighting] = []
    for index, canary in enumerate(canaries):
        body = letters_of(canary)[0]
        if len(body) < 4:
            continue
        whole = list(_whole(index, body, letters, places))
        if not whole:
            whole = list(_encoded(index, canary, text))
        if not whole:
            digits = numbers_of(text) if digits is None else digits
            whole = list(_coded(index, canary, digits))
        found.extend(whole or _part(index, body, letters, places))
    return sorted(found, key=lambda s: (s.start, s.end))


def letters_of(text: str) -> tuple[str, list[int]]:
    """Letters and digits in small, and where each stands."""
    places = [i for i, character in enumerate(text) if character.isalnum()]
    lowered = [text[i].lower()[:1] for i in places]
    return "".join(lowered), places


def _whole(index: int, body: str, letters: str, places: Sequence[int]) -> Iterator[Sighting]:
    writings = (
        ("verbatim", body),
        ("reversed", body[::-1]),
        ("rot13", codecs.encode(body, "rot13")),
        ("hex", body.encode("utf-8", "surrogatepass").hex()),
    )
    for how, writing in writings:
        start = letters.find(writing)
        while start >= 0:
            yield Sighting(index, places[start], places[start + len(writing) - 1] + 1, how, 1.0)
            start = letters.find(writing, start + len(writing))


@lru_cache(maxsize=256)
def encodings_of(canary: str) -> tuple[tuple[str, str], ...]:
    """Substrings that show up when the mark stands anywhere inside an encoded text."""
    found = []
    for writing in dict.fromkeys(
        (canary, canary.lower(), canary.upper(), re.sub(r"\W", "", canary), canary[::-1])
    ):
        raw = writing.encode("utf-8", "surrogatepass")
        found.append(("hex", raw.hex()))
        found.append(("percent", "".join(f"%{byte:02x}" for byte in raw)))
        for shift in range(3):
            core = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
            lead = (0, 2, 3)[shift]
            tail = len(core) - (1 if (len(raw) + shift) % 3 else 0)
            found.append(("base64", core[lead:tail]))
        found.append(("base32", base64.b32encode(raw).decode().rstrip("=")[:-1]))
    return tuple(dict.fromkeys(found))


def _encoded(index: int, canary: str, text: str) -> Iterator[Sighting]:
    bare = re.sub(r"\s", "", text)
    lowered = bare.lower()
    standard = bare.replace("-", "+").replace("_", "/")
    for how, writing in encodings_of(canary):
        place = standard.find(writing) if how == "base64" else lowered.find(writing.lower())
        if place >= 0 and len(writing) >= _SHORTEST_PART:
            at = [i for i, character in enumerate(text) if not character.isspace()]
            yield Sighting(index, at[place], at[place + len(writing) - 1] + 1, how, 1.0)
            return


def numbers_of(text: str) -> tuple[str, list[int]]:
    """The text's numbers as characters of these codes (`75 55 81`), and where each stands."""
    signs, places = [], []
    for match in re.finditer(r"\b(?:0x)?[0-9a-fA-F]{2,3}\b", text):
        token = match.group()
        base = 16 if token[:2] == "0x" else 10
        if base == 10 and not token.isdigit():
            continue
        code = int(token, base)
        signs.append(chr(code) if 32 <= code < 127 else "\0")
        places.append(match.start())
    return "".join(signs).lower(), places


def _coded(index: int, canary: str, numbers: tuple[str, list[int]]) -> Iterator[Sighting]:
    signs, places = numbers
    place = signs.find(canary.lower())
    if place >= 0:
        yield Sighting(index, places[place], places[place + len(canary) - 1] + 2, "codes", 1.0)


def _part(index: int, body: str, letters: str, places: Sequence[int]) -> Iterator[Sighting]:
    """The longest piece of the mark, when it is most of it."""
    least = max(_SHORTEST_PART, round(len(body) * _PARTIAL))
    for size in range(len(body) - 1, least - 1, -1):
        for offset in range(len(body) - size + 1):
            start = letters.find(body[offset : offset + size])
            if start >= 0:
                yield Sighting(
                    index, places[start], places[start + size - 1] + 1, "partial", size / len(body)
                )
                return
