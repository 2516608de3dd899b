"""Redaction by location: which characters go, settled once, and what stands in their place."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from stanchion.core.finding import Severity
from stanchion.guard.policy_model import Redaction
from stanchion.guard.rules import Operator
from stanchion.guard.vault import Vault

_NAMED_FAMILIES = ("pii", "secret")
_OTHER_NAMES = {"leakage.exfiltration": "LINK", "leakage.canary": "MARKER"}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of text that must go, half-open, in code points.

    `within` says what of a JSON text it is: a piece of a string, or a whole number or literal name.
    """

    start: int
    end: int
    category: str
    operator: Operator
    severity: Severity = Severity.MEDIUM
    score: float = 1.0
    within: Literal["", "string", "literal"] = ""

    @property
    def kind(self) -> str:
        """What a reader is told stood here: `EMAIL`, `API_KEY`, `INJECTION`."""
        family, _, last = self.category.rpartition(".")
        named = last if family in _NAMED_FAMILIES else self.category.partition(".")[0]
        return _OTHER_NAMES.get(self.category, named.upper())


def settle(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Disjoint marks in order: those that overlap become one that covers them all.

    It takes the category of the worst (severity, score, length, first), and the operator that leaves least.
    """
    groups: list[list[Mark]] = []
    end = -1
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.end)):
        if mark.start >= mark.end:
            continue
        if groups and mark.start < end:
            groups[-1].append(mark)
        else:
            groups.append([mark])
        end = max(end, mark.end)
    return tuple(_joined(group) for group in groups)


def _joined(group: Sequence[Mark]) -> Mark:
    worst = max(group, key=_weight)
    return msgspec.structs.replace(
        worst,
        start=min(mark.start for mark in group),
        end=max(mark.end for mark in group),
        operator=max((mark.operator for mark in group), key=lambda operator: operator.removes),
    )


def _weight(mark: Mark) -> tuple[int, float, int, int, str]:
    return mark.severity.rank, mark.score, mark.end - mark.start, -mark.start, mark.category


class Redactor:
    """Rewrites texts; the key makes hashes and placeholders that outsiders cannot recompute."""

    def __init__(self, settings: Redaction, *, key: bytes) -> None:
        self._settings = settings
        self._key = key

    def __repr__(self) -> str:
        return f"Redactor({self._settings.operator.value})"

    def redact(self, text: str, marks: Iterable[Mark], *, vault: Vault | None = None) -> str:
        """The text with every mark rewritten. Without a vault, `vault` marks are replaced by their kind."""
        pieces: list[str] = []
        at = 0
        for mark in settle(marks):
            pieces.append(text[at : mark.start])
            instead = self._instead(text[mark.start : mark.end], mark, text, vault)
            pieces.append(_in_json(instead, mark) if mark.within else instead)
            at = mark.end
        pieces.append(text[at:])
        return "".join(pieces)

    def _instead(self, found: str, mark: Mark, text: str, vault: Vault | None) -> str:
        match mark.operator:
            case Operator.MASK:
                return self._masked(found)
            case Operator.HASH:
                return f"[{mark.kind}:{self._stream(found, 8).hex()}]"
            case Operator.PLACEHOLDER:
                return self._placeholder(found)
            case Operator.VAULT if vault is not None:
                return vault.token(mark.kind, found, avoid=text)
            case _:
                return f"[{mark.kind}]"

    def _masked(self, found: str) -> str:
        keep = self._settings.mask_keep_last
        if keep == 0 or len(found) < 3 * keep:  # of a short text even its end would tell too much
            return self._settings.mask_character * len(found)
        return self._settings.mask_character * (len(found) - keep) + found[-keep:]

    def _placeholder(self, found: str) -> str:
        """Digits for digits, letters for letters in the same case; equal texts give equal placeholders."""
        stream = self._stream(found, 2 * len(found))
        made = "".join(
            _same_class(character, stream[2 * index] << 8 | stream[2 * index + 1])
            for index, character in enumerate(found)
        )
        return made if made != found else self._settings.mask_character * len(found)

    def _stream(self, found: str, length: int) -> bytes:
        data = found.encode("utf-8", "surrogatepass")
        blocks = b""
        counter = 0
        while len(blocks) < length:
            blocks += hmac.digest(self._key, counter.to_bytes(4, "big") + data, "sha256")
            counter += 1
        return blocks[:length]


def _in_json(instead: str, mark: Mark) -> str:
    """A text as a JSON string; within one, without its quotes."""
    written = json.dumps(instead, ensure_ascii=False)
    return written if mark.within == "literal" else written[1:-1]


def _same_class(character: str, number: int) -> str:
    """Another character of the same class; what is neither letter nor digit stays."""
    if character.isdigit():
        return str(number % 10)
    if character.isalpha():
        letter = chr(ord("a") + number % 26)
        return letter.upper() if character.isupper() else letter
    return character
