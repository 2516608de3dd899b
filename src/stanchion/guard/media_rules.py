"""The policy's word on parts that are not text: images, sounds, films, files. There is no silent pass."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class MediaHandling(StrEnum):
    """What becomes of a part. `extract`: its text is checked in its place; what has none is blocked."""

    BLOCK = "block"
    EXTRACT = "extract"
    ALLOW = "allow"

    @property
    def strictness(self) -> int:
        """0 for allow up to 2 for block."""
        return _STRICTNESS[self]


_STRICTNESS = {MediaHandling.ALLOW: 0, MediaHandling.EXTRACT: 1, MediaHandling.BLOCK: 2}
KINDS = ("text", "image", "audio", "video", "file")


class MediaRules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for each kind. `file` is everything whose media type belongs to no other kind.

    `remote` says whether a part that only points somewhere may be allowed at all: what stands there when the
    model looks is in nobody's hands. `max_bytes` is for embedded parts, after decoding.
    """

    text: MediaHandling = MediaHandling.EXTRACT
    image: MediaHandling = MediaHandling.BLOCK
    audio: MediaHandling = MediaHandling.BLOCK
    video: MediaHandling = MediaHandling.BLOCK
    file: MediaHandling = MediaHandling.BLOCK
    remote: bool = False
    max_bytes: int = 20_000_000

    @classmethod
    def every(cls, handling: MediaHandling) -> MediaRules:
        """One rule for every kind; `allow` also for parts that only point somewhere."""
        kinds = dict.fromkeys(KINDS, handling)
        return msgspec.convert({**kinds, "remote": handling is MediaHandling.ALLOW}, cls)

    def handling(self, media_type: str) -> MediaHandling:
        """What holds for a media type."""
        found: MediaHandling = getattr(self, kind_of(media_type))
        return found


def kind_of(media_type: str) -> str:
    """`text`, `image`, `audio`, `video` or `file`, by the first half of the media type."""
    family = media_type.partition("/")[0].strip().casefold()
    return family if family in KINDS and family != "file" else "file"
