"""Images, sounds and files of an exchange: each follows the policy's written rule, or is read as text.

An extractor gives the text of an embedded file; the text is then checked like any other, in the place of the
part. What cannot be extracted is blocked, never passed: a file elsewhere (nobody is asked for it), bytes that
no extractor takes, one that fails or does not answer in time. Other packages offer extractors with an entry
point in the group `stanchion.extractors`: its value is `module:factory`, called without arguments.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

import msgspec

from stanchion.core.decision import Surface
from stanchion.core.errors import StanchionError, UsageError
from stanchion.core.interaction import Media
from stanchion.core.origin import Origin
from stanchion.guard.fields import Field, TextField, UncheckedPart
from stanchion.guard.media_rules import MediaHandling, MediaRules, kind_of
from stanchion.guard.workers import Door, WorkerPool

ENTRY_POINT_GROUP = "stanchion.extractors"
EXTRACT_DEADLINE_S = 5.0

# First bytes of formats, and the media type that they mean; (offset, bytes, type).
_MAGIC = (
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
)
_SOUND_AND_FILM = frozenset({"audio", "video"})  # one container holds either


class TextExtractor(Protocol):
    """Gives the text of a file. It runs on a thread of its own and has a deadline."""

    @property
    def id(self) -> str:
        """Its name, for reasons and records."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever a text may change."""
        ...

    @property
    def media_types(self) -> Sequence[str]:
        """Shell-style patterns of the media types it takes, such as `application/pdf`."""
        ...

    def extract(self, data: bytes, media_type: str) -> str:
        """All text that a model could read in it.

        Raises:
            StanchionError: when it cannot be read; its message is shown, so it quotes nothing.
        """
        ...


class PlainText:
    """Text files and JSON, in UTF-8."""

    id = "plain_text"
    version = "1"
    media_types = ("text/*", "application/json", "application/*+json", "application/xml", "application/yaml")

    def extract(self, data: bytes, media_type: str) -> str:
        """The words as they are."""
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError("its bytes are not UTF-8.") from error


class MediaReader:
    """Turns parts whose text can be had, and whose rule says so, into texts to check."""

    def __init__(
        self,
        rules: MediaRules,
        extractors: Sequence[TextExtractor] | None = None,
        *,
        pool: WorkerPool | None = None,
    ) -> None:
        """`extractors` are asked in order; the first that takes a media type reads it."""
        self._rules = rules
        self._extractors = (PlainText(),) if extractors is None else (*extractors, PlainText())
        self._pool = pool or WorkerPool(max_workers=2)

    async def read(self, door: Door, fields: Iterable[Field]) -> list[Field]:
        """The fields, with a text in the place of every part that was read."""
        read = list(fields)
        for number, field in enumerate(read):
            if isinstance(field, UncheckedPart) and field.media is not None:
                read[number] = await self._one(door, field)
        return read

    async def _one(self, door: Door, field: UncheckedPart) -> Field:
        media = field.media
        if media is None or handling_of(self._rules, media) is not MediaHandling.EXTRACT:
            return field
        data = embedded_bytes(media)
        if data is None:
            return _with_fault(field, "it is not embedded, so there is nothing to read")
        if len(data) > self._rules.max_bytes:
            return field  # `media_word` says why it is blocked
        taker = next((one for one in self._extractors if _takes(one, media.media_type)), None)
        if taker is None:
            return _with_fault(field, f"no extractor takes {media.media_type[:80]!r}")
        text, fault = await self._extracted(door, taker, data, media.media_type)
        if fault:
            return _with_fault(field, fault)
        is_users = field.origin in (Origin.USER, Origin.UNKNOWN)
        return TextField(
            field=f"{field.field}.extracted",
            surface=Surface.RETRIEVED if is_users else field.surface,
            origin=Origin.RETRIEVED if is_users else field.origin,
            text=text,
            is_rewritable=isinstance(taker, PlainText),
        )

    async def _extracted(
        self, door: Door, taker: TextExtractor, data: bytes, media_type: str
    ) -> tuple[str, str]:
        """The text, and what went wrong; one of the two is empty."""
        if isinstance(taker, PlainText):
            try:
                return taker.extract(data, media_type), ""
            except StanchionError as error:
                return "", error.message
        found: list[Any] = []
        try:
            job = self._pool.submit(lambda: found.append(taker.extract(data, media_type)))
        except StanchionError as error:
            return "", error.message
        if not await door.wait(job.future, EXTRACT_DEADLINE_S):
            self._pool.abandon(job)
            return "", f"extractor {taker.id!r} gave no answer within {EXTRACT_DEADLINE_S:g} s"
        raised = job.future.exception()
        if raised is not None:
            why = raised.message if isinstance(raised, StanchionError) else f"raised {type(raised).__name__}"
            return "", f"extractor {taker.id!r}: {why}"
        if not isinstance(found[0], str):
            return "", f"extractor {taker.id!r} gave {type(found[0]).__name__}, not a text"
        return found[0], ""


def offered_extractors() -> tuple[TextExtractor, ...]:
    """The extractors of installed packages, by name.

    Raises:
        UsageError: when one cannot be loaded.
    """
    made = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        try:
            made.append(point.load()())
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"extractor {point.name!r} cannot be loaded: {error}.",
                hint="Install what it needs, or remove the package.",
            ) from error
    return tuple(made)


def handling_of(rules: MediaRules, media: Media | None) -> MediaHandling:
    """The strictest of what holds for the declared type and for the type that the bytes show."""
    if media is None:
        return rules.file
    data = embedded_bytes(media)
    shown = None if data is None else shown_type(data)
    types = [media.media_type]
    if shown is not None and not _is_of_kind(shown, media.media_type):
        types.append(shown)
    return max((rules.handling(kind) for kind in types), key=lambda handling: handling.strictness)


def media_word(rules: MediaRules, part: UncheckedPart) -> tuple[bool, str]:
    """Whether a part may pass unread, and the sentence that says so."""
    media = part.media
    kind = "file" if media is None else kind_of(media.media_type)
    handling = handling_of(rules, media)
    if handling is MediaHandling.EXTRACT:
        why = part.fault or ("its bytes are no text" if media is None else "it is too large")
        return False, f"a part of kind media ({kind}) must be read and cannot be: {why}."
    if handling is MediaHandling.BLOCK:
        return False, f"a part of kind media ({kind}) cannot be checked; the policy says block."
    if media is not None:
        data = embedded_bytes(media)
        if data is None and (media.location or "").startswith("data:"):
            return False, f"a part of kind media ({kind}) is damaged: its data is not base64."
        if data is None and not rules.remote:
            return False, f"a part of kind media ({kind}) points elsewhere; media.remote does not allow that."
        if data is not None and len(data) > rules.max_bytes:
            return False, f"a part of kind media ({kind}) has more than {rules.max_bytes:,} bytes."
    return True, f"a part of kind media ({kind}) cannot be checked; the policy says allow."


def embedded_bytes(media: Media) -> bytes | None:
    """The bytes of a data URL; None for anything else, a damaged one included."""
    head, separator, body = (media.location or "").partition(",")
    if not separator or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def shown_type(data: bytes) -> str | None:
    """The media type that the first bytes show; None when they show none."""
    for offset, magic, media_type in _MAGIC:
        if data.startswith(magic, offset):
            return media_type
    return None


def _is_of_kind(shown: str, declared: str) -> bool:
    kinds = {kind_of(shown), kind_of(declared)}
    return len(kinds) == 1 or kinds == _SOUND_AND_FILM


def _takes(extractor: TextExtractor, media_type: str) -> bool:
    wanted = media_type.casefold()
    return any(fnmatch.fnmatchcase(wanted, pattern) for pattern in extractor.media_types)


def _with_fault(field: UncheckedPart, fault: str) -> UncheckedPart:
    return msgspec.structs.replace(field, fault=fault)


def versions(extractors: Iterable[TextExtractor]) -> Mapping[str, str]:
    """Ids and versions, for the digests of a guard's components."""
    return {one.id: one.version for one in extractors}
