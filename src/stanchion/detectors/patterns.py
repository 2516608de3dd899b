"""What a pattern and a catalogue of patterns are, without how they are read from files."""

from __future__ import annotations

from typing import Literal

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.core.finding import Severity

ViewFamily = Literal["raw", "folded", "spaced", "decoded", "segment"]
Flag = Literal["caseless", "dotall", "multiline", "ucp"]

VIEW_FAMILIES: tuple[ViewFamily, ...] = ("raw", "folded", "spaced", "decoded", "segment")
DEFAULT_VIEWS: tuple[ViewFamily, ...] = ("raw", "folded", "decoded")
FORMAT = 2  # raise it when what a file means changes: parsed copies in the cache are then not used
FLAGS: tuple[Flag, ...] = ("caseless", "dotall", "multiline", "ucp")


class ContextRule(msgspec.Struct, frozen=True, kw_only=True):
    """Words that make a match more likely when they stand within `window` characters of it.

    With `required`, a match without such a word is no finding; otherwise a word adds `raise_by` to the score.
    """

    words: tuple[str, ...]
    window: int = 60
    raise_by: float = msgspec.field(name="raise", default=0.0)
    required: bool = False


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look for. The prefix of its id names the detector that reports it.

    `group` is the capture group that is reported, 0 for the whole match. `views` are families of views.
    """

    id: str
    pattern: str
    category: str
    severity: Severity
    score: float
    group: int = 0
    flags: tuple[Flag, ...] = ()
    views: tuple[ViewFamily, ...] = DEFAULT_VIEWS
    validator: str = ""
    context: ContextRule | None = None
    reason: str = ""
    examples: tuple[str, ...] = ()
    counter_examples: tuple[str, ...] = ()

    @property
    def detector(self) -> str:
        """The first segment of the id: `pii` of `pii.email`."""
        return self.id.partition(".")[0]


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The patterns of one file."""

    id: str
    version: int
    source: str
    patterns: tuple[Pattern, ...]

    @property
    def digest(self) -> Digest:
        """The identity of everything the file says."""
        return digest(self)
