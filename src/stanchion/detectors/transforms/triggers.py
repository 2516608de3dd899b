"""Which decoders a text needs: cheap shapes that an automaton finds, so that plain prose starts none of them.

A trigger that fires for nothing costs time; one that stays silent costs a reading. So they are wide, and each
decoder decides for itself.
"""

from __future__ import annotations

from enum import IntFlag
from functools import cache
from typing import Any

from stanchion.detectors.transforms.scratch import ThreadScratch


class Trigger(IntFlag):
    """One bit for each transform that waits for a sign."""

    NONE = 0
    BASE64 = 1
    HEX = 2
    URL = 4
    ENTITY = 8
    QUOTED_PRINTABLE = 16
    ESCAPE = 32
    LEET = 64
    SPACED = 128
    CONTROLS = 256
    NUMBERS = 512
    BASE85 = 1024
    REVERSED = 2048


DECODING = (
    Trigger.BASE64
    | Trigger.HEX
    | Trigger.URL
    | Trigger.ENTITY
    | Trigger.QUOTED_PRINTABLE
    | Trigger.ESCAPE
    | Trigger.NUMBERS
    | Trigger.BASE85
)
SPELLING = Trigger.LEET | Trigger.SPACED

# What pulls letters apart; of the two in the middle one must be a letter, or lists of numbers would do.
_B = rb"[ \t\r\n.\-_*~|/,+]{1,3}"

# Words that show that a text is written backwards: one of the first, or two of the second near each other.
_BACKWARDS = (
    rb"erongi|suoiverp|snoitcurtsn[iI]|tpmorp|metsys|laever|tegrof|dragersid|tnatsissa|drowssap|terces|"
    rb"snoitcirtser|lai?tnedifnoc|edirrevo|ssapyb|timbus|rotartsinimda|repoleved|kaerbliaj|egassem|retfaereh"
)
_OFTEN_BACKWARDS = (
    rb"eht|siht|taht|htiw|ruoy|morf|uoy|tuoba|dluohs|dluoc|dluow|tahw|hcihw|ereht|erehw|esaelp|rewsna|txet|"
    rb"woh|evah|tsum|retfa|erofeb|evig|etirw|wohs|dnes|tnirp|wollof|evah|meht|yeht|neht|nehw|rehto|nac"
)

# The same expressions stand in the scanner's automaton and in the small one below; ASCII only, no flags.
EXPRESSIONS: tuple[tuple[Trigger, bytes], ...] = (
    (Trigger.BASE64, rb"[A-Za-z0-9+/_-]{20}"),
    (Trigger.HEX, rb"[0-9A-Fa-f]{20}|(?:[0-9A-Fa-f]{2}[ :,-]){9}|(?:0x[0-9A-Fa-f]{2}[ ,;]{0,2}){6}"),
    (Trigger.URL, rb"%[0-9A-Fa-f]{2}"),
    (Trigger.ENTITY, rb"&(?:#(?:[0-9]{2}|[xX][0-9A-Fa-f]{2}|[0-9];|[xX][0-9A-Fa-f];)|"
                     rb"[A-Za-z][A-Za-z0-9]{1,31};)"),
    (Trigger.QUOTED_PRINTABLE, rb"=[0-9A-Fa-f]{2}[\x00-\xff]{0,80}=[0-9A-Fa-f]{2}|=\r?\n"),
    (Trigger.ESCAPE, rb"\\(?:u[0-9A-Fa-f]{4}|u\{|x[0-9A-Fa-f]{2}|U000|[nrt\"/\\]|[01][0-7]{2})"),
    (Trigger.LEET, rb"[A-Za-z][0134578@$!][A-Za-z]|\b[01345789@$!][A-Za-z]{3}"),
    (Trigger.SPACED, rb"(?:^|[^A-Za-z0-9])[A-Za-z0-9@$!]" + _B
                     + rb"(?:[A-Za-z]" + _B + rb"[A-Za-z0-9@$!]|[0-9@$!]" + _B + rb"[A-Za-z])"
                     + _B + rb"[A-Za-z0-9@$!](?:[^A-Za-z0-9]|$)"),
    (Trigger.CONTROLS, rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),
    (Trigger.NUMBERS, rb"(?:[01]{8}[ ,\n]?){4}[01]{8}|(?:[0-9]{2,6}[ ,;]{1,3}){9}[0-9]{2}"),
    (Trigger.BASE85, rb"<~[!-uz\s]{10}"),
    (Trigger.REVERSED, rb"(?i)(?:" + _BACKWARDS + rb")(?:[^a-z]|$)|(?:^|[^a-z])(?:" + _OFTEN_BACKWARDS
                       + rb")[^a-z](?:[\x00-\xff]{0,80}[^a-z])?(?:" + _OFTEN_BACKWARDS + rb")(?:[^a-z]|$)"),
)  # fmt: skip


def find_triggers(data: bytes) -> Trigger:
    """The triggers in a text that no scanner has looked at yet."""
    database, scratch = _automaton()
    found: list[int] = []
    database.scan(data, _note, 0, found, scratch.get())
    value = 0
    for bit in found:
        value |= bit
    return Trigger(value)


def _note(bit: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(bit)


@cache
def _automaton() -> tuple[Any, ThreadScratch]:
    import hyperscan

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[pattern for _, pattern in EXPRESSIONS],
        ids=[bit.value for bit, _ in EXPRESSIONS],
        elements=len(EXPRESSIONS),
        flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(EXPRESSIONS),
    )
    return database, ThreadScratch(database)
