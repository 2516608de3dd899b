"""Which decoders a text needs: cheap shapes that an automaton finds, so that plain prose starts none of them.

A trigger that fires for nothing costs time; one that stays silent costs a reading. So they are wide, and each
decoder decides for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag
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

# Words that nobody writes in this order of letters, unless a text is written backwards.
_BACKWARDS = (
    rb"erongi|suoiverp|snoitcurtsn[iI]|tpmorp|metsys|laever|tegrof|dragersid|tnatsissa|drowssap|terces|"
    rb"snoitcirtser|laitnedifnoc|edirrevo|ssapyb|timbus|rotartsinimda|repoleved|kaerbliaj|egassem"
)
_SHORT_BACKWARDS = (
    rb"eht|siht|taht|htiw|ruoy|morf|uoy|tuoba|dluohs|dluoc|dluow|tahw|hcihw|ereht|erehw|esaelp|rewsna|txet|"
    rb"evah|retfa|erofeb|etirw|tnirp|wollof|meht|yeht|neht|nehw|rehto"
)

Expression = tuple[int, bytes]
_DIGIT = 1 << 16  # no trigger: what needs a digit is looked for only where there is one

# One automaton for each group: together they would be several times slower than apart. ASCII only, no flags.
_SINGLE: tuple[Expression, ...] = (
    (Trigger.CONTROLS, rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),
    (_DIGIT, rb"[0-9]"),
)
_SIGNS: tuple[Expression, ...] = (
    (Trigger.URL, rb"%[0-9A-Fa-f]{2}"),
    (Trigger.ENTITY, rb"&(?:#(?:[0-9]{2}|[xX][0-9A-Fa-f]{2}|[0-9];|[xX][0-9A-Fa-f];)|"
                     rb"[A-Za-z][A-Za-z0-9]{1,31};)"),
    (Trigger.QUOTED_PRINTABLE, rb"=[0-9A-Fa-f]{2}[\x00-\xff]{0,80}=[0-9A-Fa-f]{2}|=\r?\n"),
    (Trigger.ESCAPE, rb"\\(?:u[0-9A-Fa-f]{4}|u\{|x[0-9A-Fa-f]{2}|U000|[nrt\"/\\]|[01][0-7]{2})"),
    (Trigger.LEET, rb"[A-Za-z][0134578@$!][A-Za-z]|\b[01345789@$!][A-Za-z]{3}"),
    (Trigger.BASE85, rb"<~[!-uz\s]{10}"),
    (Trigger.REVERSED, rb"(?i)(?:" + _BACKWARDS + rb")(?:[^a-z]|$)|(?:^|[^a-z])(?:" + _SHORT_BACKWARDS
                       + rb")(?:[^a-z]|$)"),
)  # fmt: skip
_RUNS: tuple[Expression, ...] = ((Trigger.BASE64, rb"[A-Za-z0-9+/_-]{20}"),)
_APART: tuple[Expression, ...] = (
    (Trigger.SPACED, rb"(?:^|[^A-Za-z0-9])[A-Za-z0-9@$!]" + _B
                     + rb"(?:[A-Za-z]" + _B + rb"[A-Za-z0-9@$!]|[0-9@$!]" + _B + rb"[A-Za-z])"
                     + _B + rb"[A-Za-z0-9@$!](?:[^A-Za-z0-9]|$)"),
)  # fmt: skip
_WITH_DIGITS: tuple[Expression, ...] = (
    (Trigger.HEX, rb"[0-9A-Fa-f]{20}|(?:[0-9A-Fa-f]{2}[ :,-]){9}|(?:0x[0-9A-Fa-f]{2}[ ,;]{0,2}){6}"),
    (Trigger.NUMBERS, rb"(?:[01]{8}[ ,\n]?){4}[01]{8}|(?:[0-9]{2,6}[ ,;]{1,3}){9}[0-9]{2}"),
)  # hexadecimal text is never without: `0` to `9` or the first digit of every ASCII letter
GROUPS: tuple[tuple[Expression, ...], ...] = (_SINGLE, _SIGNS, _RUNS, _APART, _WITH_DIGITS)

EXPRESSIONS = tuple((Trigger(bit), pattern) for group in GROUPS for bit, pattern in group if bit != _DIGIT)


class TriggerFinder:
    """Looks for all triggers; `databases` are those of `GROUPS`."""

    def __init__(self, databases: Sequence[Any]) -> None:
        automata = [(database.scan, ThreadScratch(database)) for database in databases]
        self._always, self._with_digits = automata[:-1], automata[-1]

    def find(self, data: bytes) -> tuple[Trigger, bool]:
        """The triggers in a text, in UTF-8, and whether there is a digit in it."""
        found: list[int] = []
        for scan, scratch in self._always:
            scan(data, _note, 0, found, scratch.get())
        if not found:
            return Trigger.NONE, False
        if _DIGIT not in found:
            return Trigger(sum(found)), False
        scan, scratch = self._with_digits
        scan(data, _note, 0, found, scratch.get())
        return (Trigger(sum(found) - _DIGIT) if len(found) > 1 else Trigger.NONE), True


def find_triggers(data: bytes) -> Trigger:
    """The triggers in a text, in UTF-8."""
    return trigger_finder().find(data)[0]


def _note(bit: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(bit)


_shared: list[TriggerFinder] = []


def trigger_finder(databases: Sequence[Any] = ()) -> TriggerFinder:
    """The finder of this process; made from `databases` if there is none yet, else compiled."""
    if not _shared:
        _shared.append(TriggerFinder(databases or build_databases()))
    return _shared[0]


def build_databases() -> list[Any]:
    """The databases of `GROUPS`, compiled."""
    import hyperscan

    made = []
    for group in GROUPS:
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        database.compile(
            expressions=[pattern for _, pattern in group],
            ids=[int(bit) for bit, _ in group],
            elements=len(group),
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(group),
        )
        made.append(database)
    return made
