"""Mutations that encode a text: what a program decodes exactly, in the forms in which texts come."""

from __future__ import annotations

import base64
import codecs
import json
import random
import textwrap


def base64_text(text: str, rng: random.Random) -> str:
    """Base64 of the UTF-8 bytes: standard, for URLs without padding, or wrapped to 76 columns."""
    data = text.encode("utf-8", "replace")
    form = rng.randrange(4)
    if form == 0:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")
    packed = base64.b64encode(data).decode()
    return textwrap.fill(packed, 76, break_on_hyphens=False) if form == 1 else packed


def base32_text(text: str, _rng: random.Random) -> str:
    """Base32 (RFC 4648) of the UTF-8 bytes."""
    return base64.b32encode(text.encode("utf-8", "replace")).decode()


def base85_text(text: str, _rng: random.Random) -> str:
    """Ascii85 of the UTF-8 bytes between `<~` and `~>`."""
    return base64.a85encode(text.encode("utf-8", "replace"), adobe=True).decode()


def hexadecimal(text: str, rng: random.Random) -> str:
    """Hex digits of the UTF-8 bytes: joined, in capitals, in pairs, or as `0x` words."""
    data = text.encode("utf-8", "replace")
    form = rng.randrange(5)
    if form == 0:
        return data.hex(" ")
    if form == 1:
        return " ".join(f"0x{byte:02x}" for byte in data)
    return data.hex().upper() if form == 2 else data.hex()


def binary(text: str, _rng: random.Random) -> str:
    """Eight binary digits for each byte, with spaces between."""
    return " ".join(f"{byte:08b}" for byte in text.encode("utf-8", "replace"))


def character_codes(text: str, rng: random.Random) -> str:
    """The code points as decimal numbers."""
    return rng.choice((" ", ", ", ",")).join(str(ord(character)) for character in text)


def rot13(text: str, _rng: random.Random) -> str:
    """Every Latin letter moved by thirteen places."""
    return codecs.encode(text, "rot13")


def url(text: str, rng: random.Random) -> str:
    """Percent escapes: every byte, or about half of the letters and all that is no letter or digit."""
    share = rng.choice((1.0, 0.5))
    return "".join(
        character
        if character.isascii() and character.isalnum() and rng.random() >= share
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))
        for character in text
    )


def entity(text: str, rng: random.Random) -> str:
    """Numeric character references of HTML: decimal, hexadecimal or either."""
    forms = rng.choice((("&#{};",), ("&#x{:x};",), ("&#{};", "&#x{:X};")))
    return "".join(rng.choice(forms).format(ord(character)) for character in text)


def unicode_escape(text: str, rng: random.Random) -> str:
    r"""Escapes of string literals: `\u0041` in UTF-16 units, or `\x41` for bytes of ASCII text."""
    if text.isascii() and rng.random() < 0.4:
        return "".join(f"\\x{ord(character):02x}" for character in text)
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def json_string(text: str, rng: random.Random) -> str:
    """The text as a value in JSON that is itself a string of JSON, with escapes for all but ASCII."""
    inner = json.dumps({rng.choice(("text", "message", "content", "note")): text})
    return json.dumps({"id": rng.randrange(1000), "body": inner})


def quoted_printable(text: str, rng: random.Random) -> str:
    """Quoted-printable (RFC 2045) with more escapes than needed, in lines of at most 76 characters."""
    share = rng.choice((1.0, 0.4))
    lines: list[str] = []
    line = ""
    for byte in text.encode("utf-8", "replace"):
        plain = chr(byte).isalnum() and byte < 128 and rng.random() >= share
        part = chr(byte) if plain else f"={byte:02X}"
        if len(line) + len(part) > 75:
            lines.append(line + "=")
            line = ""
        line += part
    return "\r\n".join([*lines, line])
