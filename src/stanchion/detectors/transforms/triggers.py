"""Which decoders a text needs: cheap shapes that an automaton finds, so that plain prose starts none of them.

A trigger that fires for nothing costs time; one that stays silent costs a reading. So they are wide, and each
decoder decides for itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntFlag
from functools import partial
from typing import Any, NamedTuple

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
# No triggers: what needs a digit, or so long a run of these, is looked for only where there is one.
HAS_DIGIT, HAS_RUN = 1 << 16, 1 << 17
RUN_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=.%~$-"
RUN = 16

# One automaton for each group: together they would be several times slower than apart. ASCII only, no flags.
_SINGLE: tuple[Expression, ...] = (
    (Trigger.CONTROLS, rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),
    (HAS_DIGIT, rb"[0-9]"),
)
_SIGNS: tuple[Expression, ...] = (
    (Trigger.URL, rb"%[0-9A-Fa-f]{2}"),
    (Trigger.ENTITY, rb"&(?:#(?:[0-9]{2}|[xX][0-9A-Fa-f]{2}|[0-9];|[xX][0-9A-Fa-f];)|"
                     rb"[A-Za-z][A-Za-z0-9]{1,31};)"),
    (Trigger.QUOTED_PRINTABLE, rb"=[0-9A-Fa-f]{2}[\x00-\xff]{0,80}=[0-9A-Fa-f]{2}|=\r?\n"),
    (Trigger.ESCAPE, rb"\\(?:u[0-9A-Fa-f]{4}|u\{|x[0-9A-Fa-f]{2}|U000|[nrt\"/\\]|[01][0-7]{2})"),
    (Trigger.LEET, rb"[A-Za-z][0134578@$!]{1,3}[A-Za-z]|\b[01345789@$!][A-Za-z]{3}|"
                   rb"[134578@$!][A-Za-z]{1,2}[134578@$!]"),
    (Trigger.BASE85, rb"<~[!-uz\s]{10}"),
    (Trigger.REVERSED, rb"(?i)(?:" + _BACKWARDS + rb")(?:[^a-z]|$)|(?:^|[^a-z])(?:" + _SHORT_BACKWARDS
                       + rb")(?:[^a-z]|$)"),
)  # fmt: skip
_RUNS: tuple[Expression, ...] = ((HAS_RUN, b"[%s]{%d}" % (RUN_CHARACTERS.encode(), RUN)),)
_APART: tuple[Expression, ...] = (
    (Trigger.SPACED, rb"(?:^|[^A-Za-z0-9])[A-Za-z0-9@$!]" + _B
                     + rb"(?:[A-Za-z]" + _B + rb"[A-Za-z0-9@$!]|[0-9@$!]" + _B + rb"[A-Za-z])"
                     + _B + rb"[A-Za-z0-9@$!](?:[^A-Za-z0-9]|$)"),
)  # fmt: skip
WITH_DIGITS: tuple[Expression, ...] = (
    (Trigger.HEX, rb"[0-9A-Fa-f]{20}|(?:[0-9A-Fa-f]{2}[ :,-]){9}|(?:0x[0-9A-Fa-f]{2}[ ,;]{0,2}){6}"),
    (Trigger.NUMBERS, rb"(?:[01]{8}[ ,\n]?){4}[01]{8}|(?:[0-9]{2,6}[ ,;]{1,3}){9}[0-9]{2}"),
)  # hexadecimal text is never without: `0` to `9` or the first digit of every ASCII letter
WITH_RUNS: tuple[Expression, ...] = ((Trigger.BASE64, rb"[A-Za-z0-9+/_-]{20}"),)
ALWAYS = (_SINGLE, _SIGNS, _RUNS, _APART)
GROUPS: tuple[tuple[Expression, ...], ...] = (*ALWAYS, WITH_DIGITS, WITH_RUNS)

EXPRESSIONS = tuple((Trigger(bit), pattern) for group in GROUPS for bit, pattern in group if bit < HAS_DIGIT)


_PLACE = re.compile(rb"\(\?:\^\|(\[[^\]]*\])\)|\(\?:(\[[^\]]*\])\|\$\)|\\b")


def cuts_of(expression: bytes) -> list[bytes]:
    """An expression as it is behind a cut of a text and as it is in front of one; none without assertions."""
    cut = [_PLACE.sub(partial(_kept, removed=side), expression) for side in (1, 2)]
    return [one for one in cut if one != expression]


def _kept(place: re.Match[bytes], *, removed: int) -> bytes:
    return b"" if place[removed] or place[0] == rb"\b" else place[0]


class Signs(NamedTuple):
    """What a look for triggers tells: them, and what else there is, by which patterns are chosen."""

    triggers: Trigger = Trigger.NONE
    has_digit: bool = False
    has_run: bool = False


_NO_SIGNS = Signs()
_TRIGGERS = HAS_DIGIT - 1


class TriggerFinder:
    """Looks for all triggers; `databases` are those of `GROUPS`."""

    def __init__(self, databases: Sequence[Any]) -> None:
        automata = [(database.scan, ThreadScratch(database)) for database in databases]
        *self._always, self._with_digits, self._with_runs = automata

    def find(self, data: bytes) -> Signs:
        """The triggers in a text, in UTF-8, and whether there is a digit or a long run in it."""
        found: list[int] = []
        for scan, scratch in self._always:
            scan(data, _note, 0, found, scratch.own)
        if not found:
            return _NO_SIGNS
        has_digit, has_run = HAS_DIGIT in found, HAS_RUN in found
        if has_digit:
            scan, scratch = self._with_digits
            scan(data, _note, 0, found, scratch.own)
        if has_run:
            scan, scratch = self._with_runs
            scan(data, _note, 0, found, scratch.own)
        return Signs(Trigger(sum(found) & _TRIGGERS), has_digit, has_run)


def find_triggers(data: bytes) -> Trigger:
    """The triggers in a text, in UTF-8."""
    return trigger_finder().find(data).triggers


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
