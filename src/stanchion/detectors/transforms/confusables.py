"""Characters that people read as another one: what a caseless ASCII pattern needs to see.

Three sources, in this order: the packaged table (`data/confusables.txt`); the character's Unicode name
(`LATIN SMALL LETTER O WITH STROKE` reads as o, `LATIN LETTER SMALL CAPITAL G` as g); its canonical
decomposition without the marks that only modify a letter. Compatibility forms (full-width, mathematical,
circled) are not here, since NFKC resolves them before.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from stanchion.core.resources import read_data_text

_SEQUENCES = {"\u00df": "ss", "\u1e9e": "SS", "\u00e6": "ae", "\u00c6": "AE", "\u0153": "oe", "\u0152": "OE"}
_SEPARATORS = {"\u2028": "\n", "\u2029": "\n"}
_BY_NAME = re.compile(
    r"LATIN (?P<case>SMALL|CAPITAL) LETTER (?:SCRIPT |TURNED |REVERSED |SIDEWAYS )?(?P<base>[A-Z])"
    r"(?: WITH .*)?"
    r"|LATIN LETTER SMALL CAPITAL (?:TURNED |REVERSED )?(?P<small>[A-Z])(?: WITH .*)?"
    r"|(?:NEGATIVE )?(?:CIRCLED|SQUARED) LATIN CAPITAL LETTER (?P<boxed>[A-Z])"
    r"|REGIONAL INDICATOR SYMBOL LETTER (?P<flag>[A-Z])"
)
_SMALL_CAPITALS = "\u0262\u026a\u0274\u0280\u028f\u0299\u029c\u029f\u1d00-\u1d22\ua730\ua731"
_MODIFYING_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)


@cache
def lookalikes() -> dict[str, str]:
    """The table of `data/confusables.txt`, and the few characters that are read as two."""
    table = {**_SEQUENCES, **_SEPARATORS}
    for row in read_data_text("confusables.txt").splitlines():
        if row and not row.startswith("# "):
            table.update((pair[0], pair[1]) for pair in row.split(" "))
    return table


@cache
def mixed_script() -> re.Pattern[str]:
    """A letter that only looks Latin beside one that is, or two small capitals in a row."""
    letters = "".join(re.escape(c) for c, r in lookalikes().items() if c.isalpha() and r.isalnum())
    small = _SMALL_CAPITALS
    return re.compile(
        f"[{letters}{small}](?:(?=[A-Za-z])|(?<=[A-Za-z].)|(?<=[{small}])(?=[{small}]))", re.DOTALL
    )  # it begins with one class, which is searched many times faster than an alternative


def reading(character: str) -> str:
    """What a character is read as: itself, an ASCII look-alike, or nothing for a mark that modifies."""
    if character < "\x80":
        return character
    known = lookalikes().get(character)
    if known is not None:
        return known
    if _MODIFYING_MARKS.fullmatch(character):
        return ""
    return _from_facts(character)


def _from_facts(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind == "Zs":
        return " "
    named = _BY_NAME.fullmatch(unicodedata.name(character, ""))
    if named is not None:
        letter = named["base"] or named["small"] or named["boxed"] or named["flag"]
        return str(letter if named["case"] != "SMALL" and not named["small"] else letter.lower())
    if "\uab70" <= character <= "\uabbf":  # small Cherokee letters are folded to the capital ones
        return lookalikes().get(character.casefold(), character)
    stripped = _MODIFYING_MARKS.sub("", unicodedata.normalize("NFD", character))
    if stripped == character or (len(stripped) > 1 and not stripped.isascii()):
        return character
    return stripped if len(stripped) != 1 else lookalikes().get(stripped, stripped)
