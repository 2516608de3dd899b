"""Decoders: each finds the encoded runs of a text that decode to text, and says what they decode to.

No decoder makes more characters than it reads, none unpacks compressed data, and a run that does not decode
to text is left as it stands. So a bomb cannot be built, and an ordinary digest, key or picture changes
nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from stanchion.detectors.transforms.edits import Edit, cut, readable
from stanchion.detectors.transforms.encodings import base32_edits, base85_edits, binary_edits, code_edits
from stanchion.detectors.transforms.triggers import Trigger

_BASE64 = re.compile(
    r"[A-Za-z0-9+/_-]{20,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*(?:\r?\n[A-Za-z0-9+/_-]{2,3}(?==))?={0,2}"
)
_HEX = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{20,}|[0-9A-Fa-f]{2}(?:[ :,-][0-9A-Fa-f]{2}){9,}")
_HEX_WORDS = re.compile(r"0x[0-9A-Fa-f]{2}(?:[ ,;]{0,2}0x[0-9A-Fa-f]{2}){5,}")
_URL = re.compile(r"%(?:[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*|u[0-9A-Fa-f]{4})")
_URL_PLUS = re.compile(r"\+(?<=[A-Za-z0-9]\+)(?=[A-Za-z0-9])")
_ENTITY = re.compile(
    r"&(?:#[0-9]{2,7};?|#[xX][0-9A-Fa-f]{2,6};?|#[0-9];|#[xX][0-9A-Fa-f];|[A-Za-z][A-Za-z0-9]{1,31};)"
)
_QUOTED = re.compile(r"=(?:[0-9A-Fa-f]{2}(?:=[0-9A-Fa-f]{2})*|\r?\n)")
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}"
    r"|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2})*|[01][0-7]{2}|[nrt\"'/\\])"
)
_SIMPLE_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_TWENTY = b"a" * 20
_BASE64_CLASSES = bytes(0x61 if re.match(r"[A-Za-z0-9+/_-]", chr(code)) else 0x20 for code in range(256))
_URL_SAFE = str.maketrans("-_", "+/")


def _runs(expression: re.Pattern[str], classes: bytes, text: str) -> Iterator[re.Match[str]]:
    """The matches of an expression that begins with twenty characters of one class.

    In ASCII text such a run is found with a fixed string, many times faster than by trying every place.
    """
    if not text.isascii():
        yield from expression.finditer(text)
        return
    found = text.encode().translate(classes)
    start = found.find(_TWENTY)
    while start >= 0:
        match = expression.match(text, start)
        if match is None:
            return
        yield match
        start = found.find(_TWENTY, match.end())


def base64_edits(text: str, max_run: int) -> Iterator[Edit]:
    """Runs of 20 or more characters of either alphabet, also wrapped to lines of one width."""
    for match in _runs(_BASE64, _BASE64_CLASSES, text):
        start = match.start()
        is_text = False
        run = match.group()
        if "\n" not in run and "\r" not in run:
            edit = _base64_block(run[:max_run], start)
            if edit is not None:
                yield edit
            yield from cut(match, max_run, "base64", is_text=edit is not None)
            continue
        lines = text[start : min(match.end(), start + max_run)].splitlines(keepends=True)
        for block in _equal_lines(lines):
            edit = _base64_block("".join(block).rstrip("\r\n"), start)
            if edit is not None:
                is_text = True
                yield edit
                start += sum(map(len, block))
                continue
            for line in block:
                edit = _base64_block(line.rstrip("\r\n"), start) if len(block) > 1 else None
                if edit is not None:
                    is_text = True
                    yield edit
                start += len(line)
        yield from cut(match, max_run, "base64", is_text=is_text)


def _equal_lines(lines: list[str]) -> Iterator[list[str]]:
    """Blocks of lines of one width; the last of a block may be shorter."""
    block: list[str] = []
    width = 0
    for line in lines:
        length = len(line.rstrip())
        if block and length == width:
            block.append(line)
            continue
        if block and length < width and len(block[-1].rstrip()) == width:
            yield [*block, line]
            block, width = [], 0
            continue
        if block:
            yield block
        block, width = [line], length
    if block:
        yield block


def _base64_block(block: str, start: int) -> Edit | None:
    if block.islower() or block.isupper():
        return None  # an identifier or a ruler: twenty characters of base64 use both cases
    packed = "".join(block.split()).rstrip("=")
    if "-" in packed or "_" in packed:
        packed = packed.translate(_URL_SAFE)
    is_one_line = len(packed) == len(block.rstrip("="))
    for skip in range(min(4, max(1, len(packed) - 16))):
        body = packed[skip:]
        if len(body) % 4 == 1:
            body = body[:-1]
        found = readable(base64.b64decode(body + "=" * (-len(body) % 4)))
        if found is not None:
            unit = (3, 4) if is_one_line and found.isascii() and _is_utf8(body, found) else None
            first = start + (skip if is_one_line else 0)
            return Edit(first, start + len(block), found, unit, "base64")
    return None


def _is_utf8(body: str, found: str) -> bool:
    return len(found) == len(body) * 3 // 4


def hex_edits(text: str, max_run: int) -> Iterator[Edit]:
    """Ten or more pairs of hex digits, joined or with one separator, or six or more with `0x`."""
    for match in _HEX.finditer(text):
        run = match.group()[:max_run]
        separated = not run[2].isalnum()
        digits = re.sub(r"[ :,-]", "", run) if separated else run
        is_text = False
        for skip in range(1 if separated else 2):
            pairs = digits[skip : len(digits) - (len(digits) - skip) % 2]
            found = readable(binascii.unhexlify(pairs))
            if found is not None:
                unit = (1, 3 if separated else 2) if len(found) == len(pairs) // 2 else None
                yield Edit(match.start() + skip, match.start() + len(run), found, unit, "hex")
                is_text = True
                break
        yield from cut(match, max_run, "hex", is_text=is_text)
    for match in _HEX_WORDS.finditer(text):
        run = match.group()[:max_run]
        found = readable(binascii.unhexlify("".join(re.findall(r"0x([0-9A-Fa-f]{2})", run))))
        if found is not None:
            yield Edit(match.start(), match.start() + len(run), found, None, "hex")
        yield from cut(match, max_run, "hex", is_text=found is not None)


def url_edits(text: str, _max_run: int) -> Iterator[Edit]:
    """Percent escapes, and `+` between letters, which stands for a space."""
    for match in _URL.finditer(text):
        run = match.group()
        if run[1] == "u":
            yield Edit(match.start(), match.end(), chr(int(run[2:], 16)), None, "url")
        else:
            yield from _octets(match, run.replace("%", ""), 3, "url")
    for match in _URL_PLUS.finditer(text):
        yield Edit(match.start(), match.end(), " ", None, "url")


def quoted_printable_edits(text: str, _max_run: int) -> Iterator[Edit]:
    """`=41` and soft line breaks (RFC 2045, section 6.7)."""
    for match in _QUOTED.finditer(text):
        run = match.group()
        if run[1] in "\r\n":
            yield Edit(match.start(), match.end(), "", None, "quoted_printable")
        else:
            yield from _octets(match, run.replace("=", ""), 3, "quoted_printable")


def _octets(match: re.Match[str], digits: str, width: int, decoder: str) -> Iterator[Edit]:
    if len(digits) == 2 and digits < "8":
        yield Edit(*match.span(), chr(int(digits, 16)), (1, width), decoder)
        return
    data = binascii.unhexlify(digits)
    if data.isascii():
        yield Edit(match.start(), match.end(), data.decode("ascii"), (1, width), decoder)
        return
    try:
        found = data.decode("utf-8")
    except UnicodeDecodeError:
        found = data.decode("latin-1")
    yield Edit(match.start(), match.end(), found, (1, width) if len(found) == len(data) else None, decoder)


def entity_edits(text: str, _max_run: int) -> Iterator[Edit]:
    """Named and numeric character references of HTML; numeric ones also without the semicolon."""
    from html import unescape

    for match in _ENTITY.finditer(text):
        found = unescape(match.group())
        if found != match.group():
            yield Edit(match.start(), match.end(), found, None, "entity")


def escape_edits(text: str, _max_run: int) -> Iterator[Edit]:
    r"""Escapes of JSON, JavaScript and Python strings: `\u0041`, `\u{41}`, `\x41`, `\101`, `\n`, `\"`."""
    for match in _ESCAPE.finditer(text):
        run = match.group()
        if run[1] == "x":
            yield from _octets(match, run.replace("\\x", ""), 4, "escape")
            continue
        found = _escaped(run)
        if found is not None:
            yield Edit(match.start(), match.end(), found, None, "escape")


def _escaped(run: str) -> str | None:
    kind = run[1]
    if kind in "uU":
        digits = run.replace("\\u", "").replace("\\U", "").strip("{}")
        if len(digits) == 8 and kind == "u":
            return binascii.unhexlify(digits).decode("utf-16-be")
        code = int(digits, 16)
        return chr(code) if code <= 0x10FFFF else None
    if kind in "01":
        return chr(int(run[1:], 8))
    return _SIMPLE_ESCAPES.get(kind, kind)


Decoder = Callable[[str, int], Iterator[Edit]]
DECODERS: Mapping[Trigger, Sequence[Decoder]] = {
    Trigger.URL: (url_edits,),
    Trigger.ENTITY: (entity_edits,),
    Trigger.ESCAPE: (escape_edits,),
    Trigger.QUOTED_PRINTABLE: (quoted_printable_edits,),
    Trigger.HEX: (hex_edits,),
    Trigger.BASE64: (base32_edits, base64_edits),
    Trigger.BASE85: (base85_edits,),
    Trigger.NUMBERS: (binary_edits, code_edits),
}


def decoding_edits(text: str, triggers: Trigger, max_run: int) -> list[Edit]:
    """The edits of all triggered decoders, in order; of two that overlap, the first one holds."""
    edits: list[Edit] = []
    for trigger, decoders in DECODERS.items():
        if triggers & trigger:
            for decoder in decoders:
                edits.extend(decoder(text, max_run))
    edits.sort(key=lambda edit: (edit.start, -edit.end))
    kept: list[Edit] = []
    end = 0
    for edit in edits:
        if edit.start >= end:
            kept.append(edit)
            end = edit.end
    return kept


_ROT13 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm",
)


def rot13(text: str) -> str:
    """Every Latin letter moved by thirteen places; offsets stay."""
    return text.translate(_ROT13)
