"""A quarantine file: documents that may not come in from now on, by digest or by source.

It is plain JSON and not signed, because it can only take away. It is read again whenever it changed; one that
was there and cannot be read any more lets nothing in.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from stanchion.core.codec import is_digest
from stanchion.core.errors import JudgementError, UsageError
from stanchion.files.keys import replace_file
from stanchion.guard.retrieval_rules import Quarantined

_LARGEST = 64 * 1024 * 1024
_Stamp = tuple[int, int, int]


class QuarantineEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the file: what, since when, by whom, why. Exactly one of `digest` and `source` is given."""

    at: str
    by: str
    reason: str
    digest: str = ""
    source: str = ""


class QuarantineFile:
    """The entries of a file, read when it changed."""

    def __init__(self, path: Path) -> None:
        """A file that is not there yet quarantines nothing; one that goes away later is an error."""
        self._path = path
        self._stamp: _Stamp | None = None
        self._held = Quarantined()

    @property
    def held(self) -> Quarantined:
        """What may not come in now.

        Raises:
            JudgementError: when the file cannot be read.
        """
        stamp = self._now()
        if stamp != self._stamp:
            entries = read_quarantine(self._path)
            self._held = Quarantined(
                digests=tuple(one.digest for one in entries if one.digest),
                sources=tuple(one.source for one in entries if one.source),
            )
            self._stamp = stamp
        return self._held

    def _now(self) -> _Stamp | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError as error:
            if self._stamp is None:
                return None
            raise JudgementError(
                f"{self._path}: the quarantine was there and is gone; nothing is let in.",
                hint="Put it back; an empty one is `[]`.",
            ) from error
        except OSError as error:
            raise JudgementError(
                f"{self._path}: the quarantine cannot be read; nothing is let in."
            ) from error
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read_quarantine(path: Path) -> tuple[QuarantineEntry, ...]:
    """The entries of a file; none when it is not there.

    Raises:
        JudgementError: when it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise JudgementError(f"{path}: the quarantine cannot be read; nothing is let in.") from error
    try:
        if len(data) > _LARGEST:
            raise ValueError("too large")
        entries = msgspec.json.decode(data, type=tuple[QuarantineEntry, ...])
    except (ValueError, RecursionError) as error:
        raise JudgementError(f"{path}: this is no quarantine file; nothing is let in.") from error
    if any(bool(one.digest) == bool(one.source) for one in entries):
        raise JudgementError(f"{path}: an entry names no digest or source, or both; nothing is let in.")
    return entries


def add_to_quarantine(path: Path, entry: QuarantineEntry, *, dry_run: bool = False) -> bool:
    """Add an entry; False when it was there already.

    Raises:
        UsageError: when the entry does not name exactly one thing.
        JudgementError: when the file cannot be read.
    """
    if bool(entry.digest) == bool(entry.source):
        raise UsageError("name either a digest or a source.")
    if entry.digest and not is_digest(entry.digest):
        raise UsageError(f"{entry.digest[:80]!r} is no digest.", hint="Write sha256: and 64 hex digits.")
    entries = read_quarantine(path)
    if any((one.digest, one.source) == (entry.digest, entry.source) for one in entries):
        return False
    if dry_run:
        return True
    rows = msgspec.to_builtins((*entries, entry))
    replace_file(path, json.dumps(rows, indent=1, ensure_ascii=False).encode() + b"\n")
    return True
