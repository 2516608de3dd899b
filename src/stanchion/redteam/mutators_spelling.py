"""Mutations that keep a text readable for people: other characters, invisible ones, words pulled apart.

The tables are chosen by hand from the Unicode code charts and do not come from `data/confusables.txt`, so
that a test of the folded views with them is not a test of a table against itself.
"""

from __future__ import annotations

import random
import string

# What a Latin letter is commonly replaced by: Cyrillic, Greek, Armenian, Cherokee, Latin extensions.
_LOOKALIKES: dict[str, str] = {
    "a": "\u0430\u0251\u03b1", "b": "\u0184\u042c", "c": "\u0441\u03f2\u1d04", "d": "\u0501\u217e",
    "e": "\u0435\u04bd", "g": "\u0261\u0581", "h": "\u04bb\u0570", "i": "\u0456\u03b9\u0131",
    "j": "\u0458\u03f3", "k": "\u03ba\u043a", "l": "\u04cf\u217c", "m": "\u043c\u217f", "n": "\u0578\u057c",
    "o": "\u043e\u03bf\u0585", "p": "\u0440\u03c1", "q": "\u051b\u0566", "r": "\u0433\u1d26",
    "s": "\u0455\ua731", "t": "\u0442\u03c4", "u": "\u057d\u03c5\u1d1c", "v": "\u03bd\u0475\u1d20",
    "w": "\u051d\u0461", "x": "\u0445\u2179", "y": "\u0443\u04af", "z": "\u1d22",
    "A": "\u0410\u0391\u13aa", "B": "\u0412\u0392\u13f4", "C": "\u0421\u13df\u03f9", "D": "\u13a0",
    "E": "\u0415\u0395\u13ac", "G": "\u050c\u13c0", "H": "\u041d\u0397\u13bb", "I": "\u0406\u0399\u04c0",
    "J": "\u0408\u13ab", "K": "\u041a\u039a\u13e6", "L": "\u13de", "M": "\u041c\u039c\u13b7",
    "N": "\u039d", "O": "\u041e\u039f\u0555", "P": "\u0420\u03a1\u13e2", "R": "\u13a1",
    "S": "\u0405\u13da\u054f", "T": "\u0422\u03a4\u13a2", "V": "\u13d9\u0474", "W": "\u051c\u13b3",
    "X": "\u0425\u03a7", "Y": "\u04ae\u03a5", "Z": "\u0396\u13c3",
}  # fmt: skip
_INVISIBLE = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e")
_MARKS = ("\u0300", "\u0301", "\u0302", "\u0308", "\u0323", "\u0332", "\u0335", "\u0336")
_LEET: dict[str, str] = {
    "a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!", "l": "1", "o": "0", "s": "5$", "t": "7", "z": "2",
}  # fmt: skip
_BREAKS = (" ", "-", ".", "_", "*")
_BORDERS = {" ": ("  ", "   ", " / ", " | "), "": (" ", "  ")}
_SMALL_CAPITALS = dict(
    zip(
        "abcdefghijklmnoprstuvwyz",
        "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18"
        "\u0280\ua731\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22",
        strict=True,
    )
)
_MATHEMATICAL = (0x1D400, 0x1D468, 0x1D4D0, 0x1D5D4, 0x1D63C, 0x1D670)  # alphabets without holes


def homoglyph(text: str, rng: random.Random) -> str:
    """A third or more of the letters, by chance, as letters of other alphabets that look the same."""
    share = rng.uniform(0.35, 0.9)
    return "".join(
        rng.choice(_LOOKALIKES[character]) if character in _LOOKALIKES and rng.random() < share else character
        for character in text
    )


def zero_width(text: str, rng: random.Random) -> str:
    """Invisible characters between the letters of words, of one kind or of several."""
    kinds = _INVISIBLE if rng.random() < 0.3 else (rng.choice(_INVISIBLE),)
    share = rng.uniform(0.4, 1.0)
    parts: list[str] = []
    for character, following in zip(text, text[1:] + " ", strict=False):
        parts.append(character)
        if character.isalnum() and following.isalnum() and rng.random() < share:
            parts.append(rng.choice(kinds))
    return "".join(parts)


def full_width(text: str, _rng: random.Random) -> str:
    """Every visible ASCII character in its full-width form."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def mathematical(text: str, rng: random.Random) -> str:
    """Latin letters as mathematical bold, script, sans-serif or typewriter ones."""
    base = rng.choice(_MATHEMATICAL)
    letters = string.ascii_uppercase + string.ascii_lowercase
    return text.translate({ord(letter): chr(base + place) for place, letter in enumerate(letters)})


def small_capitals(text: str, _rng: random.Random) -> str:
    """Letters as small capitals; q and x have none."""
    return "".join(_SMALL_CAPITALS.get(character.lower(), character) for character in text)


def combining(text: str, rng: random.Random) -> str:
    """One to three modifying marks on most letters."""
    return "".join(
        c + "".join(rng.choices(_MARKS, k=rng.randint(1, 3))) if c.isalpha() and rng.random() < 0.7 else c
        for c in text
    )


def tag(text: str, _rng: random.Random) -> str:
    """ASCII as Unicode tags, which no font shows."""
    return "".join(chr(0xE0000 + ord(c)) if " " <= c <= "~" else c for c in text)


def variation_selector(text: str, rng: random.Random) -> str:
    """The UTF-8 bytes as variation selectors behind one visible character: 0-15 and 16-255 in two blocks."""
    carrier = rng.choice("\u263a\u2764\u2728\U0001f600a.")
    return carrier + "".join(
        chr(0xFE00 + byte) if byte < 16 else chr(0xE0100 + byte - 16)
        for byte in text.encode("utf-8", "replace")
    )


def bidi(text: str, _rng: random.Random) -> str:
    """Each line reversed inside a right-to-left override, so that it is shown as it was."""
    return "\n".join(f"\u202e{line[::-1]}\u202c" if line else line for line in text.split("\n"))


def leet(text: str, rng: random.Random) -> str:
    """Letters as the digits and signs that look like them, most of those that can be."""
    share = rng.uniform(0.5, 1.0)
    return "".join(
        rng.choice(_LEET[character.lower()])
        if character.lower() in _LEET and rng.random() < share
        else character
        for character in text
    )


def spacing(text: str, rng: random.Random) -> str:
    """Words pulled apart with one sign; what stands between words is longer or another sign."""
    inner = rng.choice(_BREAKS)
    border = rng.choice(_BORDERS[" " if inner == " " else ""])
    return border.join(inner.join(word) for word in text.split())


def alternating_case(text: str, rng: random.Random) -> str:
    """Letters in either case by chance."""
    return "".join(rng.choice((character.lower(), character.upper())) for character in text)


def reversed_text(text: str, _rng: random.Random) -> str:
    """The characters from the last to the first."""
    return text[::-1]


def reversed_words(text: str, _rng: random.Random) -> str:
    """Each word written backwards, the words in their order."""
    return " ".join(word[::-1] for word in text.split(" "))
