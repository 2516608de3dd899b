"""The last documents on this host's disk: what is obeyed after a restart when nothing else answers.

For each kind two files: the signed document, and a mark with the highest version that was ever obeyed here.
The mark is what tells a fresh host from one whose document was deleted, and it stops an older document, which
is signed too, from being put back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stanchion.gateway.control_document import MAX_ENVELOPE_BYTES, MAX_VERSION, ControlKind
from stanchion.gateway.control_keys import write_private

_MAX_MARK_BYTES = 1000


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The highest version obeyed, and the latest wall time that was seen then or later (microseconds)."""

    version: int
    seen_at_us: int = 0


class DiskState(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `mark` None with `is_damaged`: there is a mark that cannot be read.

    `was_absent`: the authority once said that nothing was decided, and nothing was heard since.
    """

    envelope: bytes | None = None
    mark: Mark | None = None
    is_damaged: bool = False
    reason: str = ""
    was_absent: bool = False


class ControlDisk:
    """The documents of one host; its replicas share the folder, and the higher version wins."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "control"

    def path(self, kind: ControlKind) -> Path:
        """Where the document of a kind is."""
        return self.folder / f"{kind.value}.dsse.json"

    def mark_path(self, kind: ControlKind) -> Path:
        """Where the mark of a kind is."""
        return self.folder / f"{kind.value}.mark.json"

    def stamp(self, kind: ControlKind) -> tuple[int, int]:
        """What changes whenever the document is replaced; (0, 0) while there is none."""
        try:
            found = os.stat(self.path(kind))
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def load(self, kind: ControlKind) -> DiskState:
        """What is there; never raises, because what cannot be read is a state of its own."""
        try:
            mark = self._mark(kind)
            envelope = _read(self.path(kind), MAX_ENVELOPE_BYTES)
        except (OSError, msgspec.DecodeError, ValueError) as error:
            return DiskState(is_damaged=True, reason=f"{type(error).__name__} in {self.folder}")
        return DiskState(envelope=envelope, mark=mark, was_absent=self._absent_path(kind).exists())

    def has_state(self) -> bool:
        """Whether anything is known here without a database."""
        return any(
            self.path(kind).exists() or self.mark_path(kind).exists() or self._absent_path(kind).exists()
            for kind in ControlKind
        )

    def note_absent(self, kind: ControlKind) -> None:
        """Remember that nothing was ever decided, so that a restart without the database knows it, too."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            if not self.mark_path(kind).exists() and not self.path(kind).exists():
                write_private(self._absent_path(kind), b"")

    def _absent_path(self, kind: ControlKind) -> Path:
        return self.folder / f"{kind.value}.none"

    def store(self, kind: ControlKind, envelope: bytes, *, mark: Mark) -> None:
        """Keep a document unless a newer one is there; durable when this returns.

        Raises:
            OSError: when it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            try:
                known = self._mark(kind)
            except (msgspec.DecodeError, ValueError):
                known = None
            if known is not None and known.version > mark.version:
                return
            if known is not None and known.version == mark.version and self._holds(kind, envelope):
                return
            self._absent_path(kind).unlink(missing_ok=True)
            write_private(self.path(kind), envelope)
            write_private(self.mark_path(kind), msgspec.json.encode(mark))

    def touch(self, kind: ControlKind, *, mark: Mark) -> None:
        """Note a later wall time under the same version."""
        with self._locked():
            known = self._mark(kind)
            if known is not None and known.version == mark.version and known.seen_at_us < mark.seen_at_us:
                write_private(self.mark_path(kind), msgspec.json.encode(mark))

    def _holds(self, kind: ControlKind, envelope: bytes) -> bool:
        try:
            return _read(self.path(kind), MAX_ENVELOPE_BYTES) == envelope
        except ValueError:
            return False

    def _mark(self, kind: ControlKind) -> Mark | None:
        data = _read(self.mark_path(kind), _MAX_MARK_BYTES)
        if data is None:
            return None
        mark = msgspec.json.decode(data, type=Mark)
        if not 1 <= mark.version <= MAX_VERSION:
            raise ValueError("a mark with an impossible version")
        return mark

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(path: Path, most: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        return None
    if len(data) > most:
        raise ValueError("too large")
    return data
