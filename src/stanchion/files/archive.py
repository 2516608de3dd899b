"""A zip of files, taken apart within limits; nothing leads outside of it."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import msgspec

from stanchion.core.errors import IntegrityError

_CHUNK = 1 << 16
_MADE = (1980, 1, 1, 0, 0, 0)  # the first day a zip knows: the same files make the same archive
_LINUX = 3


class ArchiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may cost.

    `ratio` is unpacked over packed bytes of one file, and counts from `ratio_grace_bytes` on.
    """

    packed_bytes: int = 256 * 1024 * 1024
    unpacked_bytes: int = 512 * 1024 * 1024
    files: int = 2_000
    ratio: int = 200
    ratio_grace_bytes: int = 1024 * 1024


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """A zip of files by name, the same bytes for the same files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=_MADE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = _LINUX
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[name])
    return made.getvalue()


def read_archive(data: bytes, *, name: str, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    """The files of a zip by their relative names; `name` is what errors call it.

    Raises:
        IntegrityError: for what is no zip, is damaged or encrypted, goes beyond the limits, names a place
            outside, a folder or a link, or holds a name twice (case does not count).
    """
    limits = limits or ArchiveLimits()
    if len(data) > limits.packed_bytes:
        raise IntegrityError(f"{name}: larger than {limits.packed_bytes:,} bytes.")
    files: dict[str, bytes] = {}
    left = limits.unpacked_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in _checked_members(archive, name, limits):
                files[info.filename] = _read(archive, info, limits, at_most=left)
                left -= len(files[info.filename])
    except _TooMuch as error:
        raise IntegrityError(f"{name}: member {error.args[0][:80]!r} unpacks to too much.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise IntegrityError(f"{name}: this is no sound zip archive.") from error
    return files


def _checked_members(archive: zipfile.ZipFile, name: str, limits: ArchiveLimits) -> Iterator[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > limits.files:
        raise IntegrityError(f"{name}: more than {limits.files:,} files.")
    if sum(info.file_size for info in members) > limits.unpacked_bytes:
        raise IntegrityError(f"{name}: unpacks to more than {limits.unpacked_bytes:,} bytes.")
    seen: set[str] = set()
    for info in members:
        fault = name_fault(info.filename)
        mode = info.external_attr >> 16
        if info.is_dir():
            fault = fault or "it is a folder"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            fault = fault or "it is a link or a special file"
        elif info.flag_bits & 0x1:
            fault = fault or "it is encrypted"
        elif info.filename.casefold() in seen:
            fault = fault or "the name is used twice"
        if fault:
            raise IntegrityError(f"{name}: member {info.filename[:80]!r} is refused: {fault}.")
        seen.add(info.filename.casefold())
        yield info


def name_fault(name: str) -> str:
    """Why a name cannot be that of a file in an archive; empty when it can."""
    path = PurePosixPath(name)
    if not name or len(name) > 240 or not name.isprintable():
        return "its name is empty, too long, or holds control characters"
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        return "its name leads outside"
    if str(path) != name or path.parts[0].startswith("."):
        return "its name is not plain"
    return ""


class _TooMuch(Exception):
    """A member that grows beyond what it may."""


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArchiveLimits, *, at_most: int) -> bytes:
    """The bytes of one member; counted while they come, because what the archive says may be a lie."""
    pieces: list[bytes] = []
    size = 0
    with archive.open(info) as member:
        while piece := member.read(_CHUNK):
            size += len(piece)
            is_bomb = size > limits.ratio_grace_bytes and size > limits.ratio * max(1, info.compress_size)
            if size > at_most or size > info.file_size or is_bomb:
                raise _TooMuch(info.filename)
            pieces.append(piece)
    return b"".join(pieces)
