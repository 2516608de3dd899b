"""Opens a file for reading, unpacking `.gz`, `.zst` and `.zip` on the way, within limits.

A packed file that grows beyond its limits is refused while it is read: nothing is unpacked to disk or held
whole.
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from stanchion.core.errors import DatasetError

_BUFFER_BYTES = 1 << 18
_DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
_NESTED = (".zip", ".gz", ".zst", ".bz2", ".xz", ".7z", ".tar", ".tgz", ".rar")


class RowLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a dataset may cost.

    `ratio` is unpacked over packed bytes and counts once more than `ratio_grace_bytes` came out.
    """

    line_bytes: int = 16 * 1024 * 1024
    output_bytes: int = 64 * 1024 * 1024 * 1024
    ratio: int = 200
    ratio_grace_bytes: int = 64 * 1024 * 1024


@contextmanager
def open_packed(path: Path, limits: RowLimits) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file.

    Raises:
        DatasetError: missing, a folder, unreadable, damaged, encrypted, beyond the limits, or a zip that does
            not hold exactly one plain file.
    """
    name = str(path)
    with _open_file(path, name) as file:
        try:
            match path.suffix.lower():
                case ".gz":
                    yield _bounded(gzip.GzipFile(fileobj=file), file, name, limits)
                case ".zst":
                    zstd = _zstd()
                    yield _bounded(
                        zstd.ZstdFile(file), file, name, limits, damaged=(zstd.ZstdError, EOFError)
                    )
                case ".zip":
                    with zipfile.ZipFile(file) as archive:
                        member = _only_member(archive, name)
                        yield _bounded(archive.open(member), file, name, limits, packed=member.compress_size)
                case _:
                    yield file
        except _DAMAGED as error:
            raise DatasetError(name, 0, f"the packed file is damaged: {error}.") from error
        except NotImplementedError as error:
            raise DatasetError(name, 0, f"the zip uses a method that is not supported: {error}.") from error


def _open_file(path: Path, name: str) -> BinaryIO:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise DatasetError(name, 0, "this is a folder, not a file of rows.")
        return path.open("rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError as error:
        raise DatasetError(name, 0, "there is no such file.") from error
    except OSError as error:
        raise DatasetError(name, 0, f"cannot be read: {error.strerror or type(error).__name__}.") from error


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def zip_member_name(path: Path) -> str:
    """The name of the one file in a zip.

    Raises:
        DatasetError: as `open_packed` does.
    """
    name = str(path)
    with _open_file(path, name) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _only_member(archive, name).filename
        except zipfile.BadZipFile as error:
            raise DatasetError(name, 0, f"the packed file is damaged: {error}.") from error


def _only_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    members = [
        info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        listed = ", ".join(repr(info.filename) for info in members[:5])
        raise DatasetError(
            name,
            0,
            f"the zip holds {len(members)} files{f' ({listed})' if members else ''}.",
            hint="A zip of rows holds exactly one.",
        )
    member = members[0]
    if member.filename.lower().endswith(_NESTED):
        raise DatasetError(
            name, 0, f"the zip holds another packed file, {member.filename!r}.", hint="Unpack it."
        )
    if member.flag_bits & 0x1:
        raise DatasetError(name, 0, "the zip is encrypted.", hint="Unpack it first.")
    return member


def _bounded(
    unpacked: Any,
    file: BinaryIO,
    name: str,
    limits: RowLimits,
    *,
    packed: int = 0,
    damaged: tuple[type[Exception], ...] = _DAMAGED,
) -> BinaryIO:
    raw = _BoundedReader(unpacked, file, name, limits, packed=packed, damaged=damaged)
    return cast(BinaryIO, io.BufferedReader(raw, _BUFFER_BYTES))


class _BoundedReader(io.RawIOBase):
    """Counts what comes out, and stops when it is too much, in all or for what went in."""

    def __init__(
        self,
        unpacked: Any,
        file: BinaryIO,
        name: str,
        limits: RowLimits,
        *,
        packed: int,
        damaged: tuple[type[Exception], ...],
    ) -> None:
        super().__init__()
        self._unpacked = unpacked
        self._file = file
        self._name = name
        self._limits = limits
        self._packed = packed
        self._damaged = damaged
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._unpacked.read(len(buffer))
        except self._damaged as error:
            raise DatasetError(self._name, 0, f"the packed file is damaged: {error}.") from error
        buffer[: len(data)] = data
        self._out += len(data)
        self._check()
        return len(data)

    def _check(self) -> None:
        limits = self._limits
        if self._out > limits.output_bytes:
            reason = f"unpacks to more than the limit of {limits.output_bytes:,} bytes."
            raise DatasetError(self._name, 0, reason, hint="Unpack it yourself if it is to be trusted.")
        if self._out > limits.ratio_grace_bytes:
            packed = max(1, self._packed or self._file.tell())
            if self._out / packed > limits.ratio:
                reason = f"unpacks to more than {limits.ratio} times its size, like a bomb."
                raise DatasetError(self._name, 0, reason, hint="Unpack it yourself if it is to be trusted.")

    def close(self) -> None:
        if not self.closed:
            self._unpacked.close()
        super().close()
