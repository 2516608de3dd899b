"""A folder of things that can be built again: each entry carries a checksum, a bad one is no entry."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)
_MAGIC = b"stanchion-cache-1\n"
_HASH_BYTES = 32


def default_cache_dir() -> Path | None:
    """`~/.cache/stanchion`, or None for a user without a home."""
    try:
        return Path.home() / ".cache" / "stanchion"
    except RuntimeError:
        return None


class DiskCache:
    """Entries by name. Nothing here fails: what cannot be read is built, what cannot be written is not kept.

    A folder that somebody else may write to is not used, since what it holds is given to a C library.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder if folder is not None and _is_ours(folder) else None

    def read(self, name: str) -> bytes | None:
        """The entry, or None when it is missing, cut short or changed."""
        if self._folder is None:
            return None
        try:
            data = (self._folder / name).read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _HASH_BYTES
        body = data[start:]
        if data[:start] != _MAGIC + hashlib.sha256(body).digest():
            _log.warning("cache entry %s is damaged and will be built again", name)
            return None
        return body

    def write(self, name: str, body: bytes) -> bool:
        """Keep an entry, whole or not at all; False when the folder does not take it."""
        if self._folder is None:
            return False
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=f".{name[:40]}.")
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(body).digest())
                file.write(body)
            os.replace(temporary, self._folder / name)
        except OSError as error:
            _log.info("cache entry %s was not kept: %s", name, error.strerror)
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            return False
        return True


def _is_ours(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
