"""What one replica obeys: for each kind the highest document that a trusted key signed, never an older one.

Documents are offered by whoever hears of one (disk, database, PostgreSQL, Redis, the same process). Who says
it does not matter, only the signature and the number do, with one exception: the *authority* (the database,
or the file on a host without one) is the place where decisions are made. When the authority has a newer
document that cannot be verified, a decision was made that this replica cannot read, so it fails closed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import IntegrityError, StanchionError
from stanchion.gateway.control_disk import ControlDisk, DiskState, Mark
from stanchion.gateway.control_document import ControlDocument, ControlKind, opened
from stanchion.store.times import to_us

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

UNKNOWN_VERSION = -1


class Trust(StrEnum):
    """How far the state of a kind is known."""

    UNKNOWN = "unknown"  # nobody has said yet whether there is a document
    NONE = "none"  # there is none: nothing was ever decided
    VERIFIED = "verified"
    FAILED = "failed"  # there is or was one, and it cannot be verified


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica knows of one kind. `heard_at_us` is when a source last confirmed it."""

    kind: ControlKind
    trust: Trust = Trust.UNKNOWN
    version: int = UNKNOWN_VERSION
    source: str = ""
    reason: str = "no source has answered yet"
    heard_at_us: int = 0
    is_on_disk: bool = False
    rejected: int = 0
    last_rejected: str = ""

    @property
    def is_obeyable(self) -> bool:
        """Whether the state is known; otherwise readers fail closed."""
        return self.trust in (Trust.VERIFIED, Trust.NONE)


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What listeners are told: the standing, and the document where one is verified."""

    standing: Standing
    document: ControlDocument | None = None
    restarted_at_us: int = 0


Listener = Callable[[Update], None]


class ControlReader:
    """The documents of one replica; threads may share it. Listeners are called in the offering thread."""

    def __init__(
        self,
        disk: ControlDisk,
        *,
        trusted: Callable[[], Mapping[str, Ed25519PublicKey]],
        clock: Clock,
        has_database: bool = True,
    ) -> None:
        self.disk = disk
        self._trusted = trusted
        self._clock = clock
        self._has_database = has_database
        self._lock = threading.RLock()
        self._standing = {kind: Standing(kind=kind) for kind in ControlKind}
        self._document: dict[ControlKind, ControlDocument] = {}
        self._envelope: dict[ControlKind, bytes] = {}
        self._damaged: dict[ControlKind, bool] = {}
        self._mark_seen: dict[ControlKind, int] = {}
        self._listeners: dict[ControlKind, list[Listener]] = {kind: [] for kind in ControlKind}
        self._changed: list[Callable[[], None]] = []

    def standing(self, kind: ControlKind) -> Standing:
        """What is known of a kind."""
        return self._standing[kind]

    def document(self, kind: ControlKind) -> ControlDocument | None:
        """The document that is obeyed."""
        return self._document.get(kind)

    def envelope(self, kind: ControlKind) -> bytes | None:
        """The same as it was signed."""
        return self._envelope.get(kind)

    def subscribe(self, kind: ControlKind, listener: Listener) -> None:
        """Be told of the state now and of every later one."""
        with self._lock:
            self._listeners[kind].append(listener)
            listener(self._update(kind))

    def on_changed(self, callback: Callable[[], None]) -> None:
        """Be told, in any thread, that something was taken in and is on disk: time to acknowledge."""
        self._changed.append(callback)

    def load(self) -> None:
        """Take up what this host's disk holds. Call once, before requests are served."""
        for kind in ControlKind:
            self._take_disk(kind, self.disk.load(kind))

    def offer(self, kind: ControlKind, data: bytes, *, source: str, is_authority: bool = False) -> bool:
        """Take a document in if it verifies and is newer; whether it did.

        A document that does not verify is counted and told in the standing; from the authority it also makes
        this replica fail closed.
        """
        with self._lock:
            if data == self._envelope.get(kind):
                return self._confirm(kind, source=source, is_authority=is_authority)
            try:
                document = opened(kind, data, keys=self._trusted())
            except StanchionError as error:
                self._reject(kind, f"{source}: {error.message}", is_authority=is_authority)
                return False
            if not self._is_new(kind, document, source=source, is_authority=is_authority):
                return False
            if not self._accept(document, data, source=source):
                return False
        for callback in self._changed:
            callback()
        return True

    def absent(self, kind: ControlKind, *, source: str) -> None:
        """The authority has no document of this kind; a known one stands nevertheless."""
        with self._lock:
            now = self._standing[kind]
            if now.trust is Trust.UNKNOWN and source == "database":
                with contextlib.suppress(OSError):
                    self.disk.note_absent(kind)
            if now.trust is Trust.UNKNOWN or (now.trust is Trust.NONE):
                self._set(
                    kind, trust=Trust.NONE, version=0, source=source, reason="", heard_at_us=self._now()
                )

    def heard(self, kind: ControlKind, *, source: str) -> None:
        """The authority says that the version which is obeyed is the newest; retries a disk that failed."""
        with self._lock:
            standing = self._standing[kind]
            if standing.trust is not Trust.VERIFIED:
                return
            self._standing[kind] = msgspec.structs.replace(standing, heard_at_us=self._now(), source=source)
            if not standing.is_on_disk:
                self._store(kind)

    def repair(self, kind: ControlKind) -> None:
        """Write the document that is obeyed over whatever else was found on disk."""
        with self._lock:
            if self._standing[kind].trust is Trust.VERIFIED:
                self._store(kind)

    def note_time(self) -> None:
        """Write down the wall time, so that after a restart a clock that was set back is noticed."""
        for kind, document in list(self._document.items()):
            try:
                self.disk.touch(kind, mark=Mark(version=document.version, seen_at_us=self._now()))
            except (OSError, ValueError, msgspec.DecodeError):
                self._set(kind, is_on_disk=False)

    # --- one kind ----------------------------------------------------------------------------------------

    def _take_disk(self, kind: ControlKind, found: DiskState) -> None:
        if found.is_damaged:
            self._fail(kind, f"the last document on disk cannot be read ({found.reason})")
            return
        mark = found.mark
        if found.envelope is None:
            if mark is not None:
                self._mark_seen[kind] = mark.version
                self._fail(kind, f"version {mark.version} was obeyed here, and its document is gone")
            elif not self._has_database or found.was_absent:
                self.absent(kind, source="file")
            return
        try:
            document = opened(kind, found.envelope, keys=self._trusted())
        except StanchionError as error:
            self._mark_seen[kind] = mark.version if mark is not None else 0
            self._fail(kind, f"the document on disk: {error.message}")
            return
        if mark is not None and document.version < mark.version:
            self._mark_seen[kind] = mark.version
            self._fail(kind, f"version {mark.version} was obeyed here, and the disk holds {document.version}")
            return
        seen = mark.seen_at_us if mark is not None else 0
        with self._lock:
            self._accept(document, found.envelope, source="disk", is_stored=True, restarted_at_us=seen)

    def _confirm(self, kind: ControlKind, *, source: str, is_authority: bool) -> bool:
        standing = self._standing[kind]
        if standing.trust is Trust.FAILED and is_authority:
            document = self._document[kind]
            return self._accept(document, self._envelope[kind], source=source)
        self._standing[kind] = msgspec.structs.replace(standing, heard_at_us=self._now())
        if not standing.is_on_disk:
            self._store(kind)
        return False

    def _is_new(
        self, kind: ControlKind, document: ControlDocument, *, source: str, is_authority: bool
    ) -> bool:
        held = self._document.get(kind)
        floor = max(self._mark_seen.get(kind, 0), held.version if held is not None else 0)
        if held is not None and document.version == held.version:
            reason = f"{source}: there are two documents with version {held.version}"
            self._reject(kind, reason, is_authority=is_authority)
            return False
        if document.version < floor:
            reason = f"{source}: version {document.version} is older than {floor}, which was obeyed here"
            self._reject(kind, reason, is_authority=False)
            return False
        if self._damaged.get(kind) and not is_authority:
            self._reject(kind, f"{source}: only the authority can tell after damage", is_authority=False)
            return False
        return True

    def _accept(
        self,
        document: ControlDocument,
        data: bytes,
        *,
        source: str,
        is_stored: bool = False,
        restarted_at_us: int = 0,
    ) -> bool:
        kind = document.kind
        held = (self._document.get(kind), self._envelope.get(kind))
        self._document[kind], self._envelope[kind] = document, data
        previous = self._standing[kind]
        self._standing[kind] = msgspec.structs.replace(
            previous,
            trust=Trust.VERIFIED,
            version=document.version,
            source=source,
            reason="",
            heard_at_us=self._now(),
            is_on_disk=is_stored,
        )
        try:
            self._tell(kind, restarted_at_us=restarted_at_us)
        except IntegrityError as error:  # signed, and its body is not for this version of Stanchion
            self._put_back(kind, *held)
            self._standing[kind] = previous
            self._reject(kind, error.message, is_authority=True)
            return False
        self._damaged.pop(kind, None)
        if not is_stored:
            self._store(kind)
        return True

    def _put_back(self, kind: ControlKind, document: ControlDocument | None, data: bytes | None) -> None:
        del self._document[kind], self._envelope[kind]
        if document is not None and data is not None:
            self._document[kind], self._envelope[kind] = document, data

    def _store(self, kind: ControlKind) -> None:
        document = self._document[kind]
        try:
            mark = Mark(version=document.version, seen_at_us=self._now())
            self.disk.store(kind, self._envelope[kind], mark=mark)
        except OSError as error:
            reason = f"obeyed, but not on disk: {error.strerror}"
            self._set(kind, is_on_disk=False, reason=reason, is_told=False)
        else:
            self._set(kind, is_on_disk=True, reason="", is_told=False)

    def _reject(self, kind: ControlKind, reason: str, *, is_authority: bool) -> None:
        count = self._standing[kind].rejected + 1
        self._set(kind, rejected=count, last_rejected=reason, is_told=False)
        if is_authority:
            self._fail(kind, reason, is_damage=False)

    def _fail(self, kind: ControlKind, reason: str, *, is_damage: bool = True) -> None:
        if is_damage and not self._mark_seen.get(kind):
            self._damaged[kind] = True
        self._set(kind, trust=Trust.FAILED, reason=reason)

    def _set(self, kind: ControlKind, *, is_told: bool = True, **changes: object) -> None:
        before = self._standing[kind]
        self._standing[kind] = msgspec.structs.replace(before, **changes)
        if is_told and before.trust is not self._standing[kind].trust:
            self._tell(kind)

    def _tell(self, kind: ControlKind, *, restarted_at_us: int = 0) -> None:
        for listener in self._listeners[kind]:
            listener(self._update(kind, restarted_at_us=restarted_at_us))

    def _update(self, kind: ControlKind, *, restarted_at_us: int = 0) -> Update:
        return Update(
            standing=self._standing[kind],
            document=self._document.get(kind),
            restarted_at_us=restarted_at_us,
        )

    def _now(self) -> int:
        return to_us(self._clock.now())
