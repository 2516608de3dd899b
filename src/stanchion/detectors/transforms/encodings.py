"""Decoders for encodings that few texts use: base32, Ascii85, binary digits, character codes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from stanchion.detectors.transforms.edits import Edit, cut, readable

_BASE32 = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?:[A-Z2-7]{16,}(?:\r?\n[A-Z2-7]{8,})*|[a-z2-7]{24,})={0,6}(?![A-Za-z0-9+/_-])"
)
_BASE85 = re.compile(r"<~([!-uz\s]{10,})~>")
_BINARY = re.compile(r"(?<![0-9A-Za-z.])[01]{8}(?:[ ,\n]?[01]{8}){4,}(?![0-9A-Za-z.])")
_CODES = re.compile(r"(?<![0-9A-Za-z.])[0-9]{2,6}(?:[ ,;]{1,3}[0-9]{2,6}){9,}(?![0-9A-Za-z.])")
_NUMBER = re.compile(r"[0-9]+")
_LOWER_SHARE = 0.5  # of the codes: text is mostly small letters, a table of numbers is not
_HIGHEST = 0x10FFFF


def base32_edits(text: str, max_run: int) -> Iterator[Edit]:
    """Runs of 16 or more characters of the alphabet of RFC 4648 in one case, also wrapped to lines."""
    for match in _BASE32.finditer(text):
        run = match.group()[:max_run]
        packed = "".join(run.split()).rstrip("=").upper()
        packed = packed[: len(packed) - (1 if len(packed) % 8 in (1, 3, 6) else 0)]
        try:
            found = readable(base64.b32decode(packed + "=" * (-len(packed) % 8)))
        except binascii.Error:
            found = None
        if found is not None:
            is_even = found.isascii() and len(run.split()) == 1
            yield Edit(match.start(), match.start() + len(run), found, (5, 8) if is_even else None, "base32")
        yield from cut(match, max_run, "base32", is_text=found is not None)


def base85_edits(text: str, max_run: int) -> Iterator[Edit]:
    """Ascii85 between `<~` and `~>`."""
    for match in _BASE85.finditer(text):
        if len(match.group()) > max_run:
            yield Edit(match.start(), match.end(), "", None, "base85", is_cut=True)
            continue
        try:
            found = readable(base64.a85decode(match[1]))
        except ValueError:
            continue
        if found is not None:
            yield Edit(match.start(), match.end(), found, None, "base85")


def binary_edits(text: str, max_run: int) -> Iterator[Edit]:
    """Five or more bytes of eight binary digits, joined or with one separator."""
    for match in _BINARY.finditer(text):
        run = match.group()[:max_run]
        digits = re.sub("[ ,\n]", "", run)
        digits = digits[: len(digits) // 8 * 8]
        found = readable(int(digits, 2).to_bytes(len(digits) // 8)) if digits else None
        if found is not None:
            is_even = len(found) == len(digits) // 8 and len(run) in (len(digits), len(digits) * 9 // 8 - 1)
            width = 8 if len(run) == len(digits) else 9
            unit = (1, width) if is_even else None
            yield Edit(match.start(), match.start() + len(run), found, unit, "binary")
        yield from cut(match, max_run, "binary", is_text=found is not None)


def code_edits(text: str, max_run: int) -> Iterator[Edit]:
    """Ten or more decimal code points in a row, if they are text in small letters for the most part."""
    for match in _CODES.finditer(text):
        run = match.group()[:max_run]
        codes = [int(number) for number in _NUMBER.findall(run)]
        if len(run) < len(match.group()):
            codes.pop()  # it may have been cut in two
        lower = sum(97 <= code <= 122 for code in codes)
        if lower < _LOWER_SHARE * len(codes) or max(codes) > _HIGHEST:
            continue
        found = readable("".join(map(chr, codes)).encode("utf-8", "replace"))
        if found is not None:
            yield Edit(match.start(), match.start() + len(run), found, None, "codes")
        yield from cut(match, max_run, "codes", is_text=found is not None)
