"""The bytes of a run log: append-only segments of hash-chained JSON lines.

A line is one frame, `{"h":"<chain hash>","r":<record>}` and a newline, so a segment reads with any JSON tool.
The chain hash is `sha256(previous hash + record bytes)`; the first previous hash is the digest of the run's
header. The live segment is plain text, written with one unbuffered write per record: a killed process loses
nothing that was appended. A full segment is sealed: compressed as independent zstd frames of about 256 KB
(random access decompresses one of them), synced, and renamed into place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stanchion.core.errors import IntegrityError, UnavailableError

SEGMENT_BYTES = 4 << 20
BLOCK_BYTES = 256 << 10
HASH_BYTES = 32
_HEAD = b'{"h":"'
_MIDDLE = b'","r":'
_TAIL = b"}\n"
_BODY_AT = len(_HEAD) + 2 * HASH_BYTES + len(_MIDDLE)


class Position(NamedTuple):
    """Where a frame lies: segment number (from 1), byte offset in the uncompressed segment, length."""

    segment: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind the frame."""
        return self.offset + self.length


class Frame(NamedTuple):
    """One record as it was written."""

    position: Position
    chain: bytes
    body: bytes


def next_hash(previous: bytes, body: bytes) -> bytes:
    """The chain hash of a record."""
    return hashlib.sha256(previous + body).digest()


def parse_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Chain hash and record of a whole line; None when it is torn or not a frame."""
    if not (line.startswith(_HEAD) and line.endswith(_TAIL) and line[_BODY_AT - 6 : _BODY_AT] == _MIDDLE):
        return None
    try:
        chain = bytes.fromhex(line[len(_HEAD) : _BODY_AT - len(_MIDDLE)].decode("ascii"))
    except ValueError:
        return None
    return (chain, line[_BODY_AT : -len(_TAIL)]) if len(chain) == HASH_BYTES else None


class Segments:
    """The segment files of one run, to read from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def numbers(self) -> list[int]:
        """The numbers of the segments that exist, in order."""
        names = (path.name.split(".", 1)[0] for path in self.folder.glob("*.jsonl*") if path.suffix != ".tmp")
        return sorted({int(name) for name in names})

    def live_path(self, number: int) -> Path:
        """Where the plain text of a segment lies while it is being written."""
        return self.folder / f"{number:06}.jsonl"

    def sealed_path(self, number: int) -> Path:
        """Where a sealed segment lies."""
        return self.folder / f"{number:06}.jsonl.zst"

    def frames(self, number: int, *, start: int = 0) -> Iterator[Frame]:
        """The frames of one segment from a byte offset on; ends silently before a torn line."""
        offset = start
        for line in self._lines(number, start):
            parsed = parse_line(line)
            if parsed is None:
                return
            yield Frame(Position(number, offset, len(line)), *parsed)
            offset += len(line)

    def read(self, position: Position) -> bytes:
        """The record at a position.

        Raises:
            IntegrityError: when no frame lies there.
        """
        blocks = self._blocks(position.segment, position.offset)
        at, block = next(blocks, (0, b""))
        begin = position.offset - at
        line = block[begin : begin + position.length]
        while len(line) < position.length and (following := next(blocks, None)) is not None:
            line += following[1][: position.length - len(line)]
        parsed = parse_line(line)
        if parsed is None:
            raise IntegrityError(
                f"run log {self.folder}: segment {position.segment} has no record at byte {position.offset}.",
                hint="The index does not fit the segments; delete index.sqlite, it is rebuilt from them.",
            )
        return parsed[1]

    def _lines(self, number: int, start: int) -> Iterator[bytes]:
        rest = b""
        for at, block in self._blocks(number, start):
            piece = block[start - at :] if at < start else block
            lines = (rest + piece).splitlines(keepends=True)
            rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
            yield from lines
        if rest:
            yield rest

    def _blocks(self, number: int, start: int) -> Iterator[tuple[int, bytes]]:
        """Pieces of the plain text with their offsets, the first being the one that holds `start`."""
        live = self.live_path(number)
        if live.exists():
            return _plain_blocks(live, start)
        return _sealed_blocks(self.sealed_path(number), start)


def _plain_blocks(path: Path, start: int) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        file.seek(start)
        at = start
        while block := file.read(BLOCK_BYTES):
            yield at, block
            at += len(block)


def _sealed_blocks(path: Path, start: int) -> Iterator[tuple[int, bytes]]:
    from backports import zstd

    try:
        packed = memoryview(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError(
            f"run log {path.parent}: segment {path.name} is missing.", hint="Restore the run's folder."
        ) from None
    at = 0
    while packed:
        try:
            size = zstd.get_frame_size(packed)
            length = zstd.get_frame_info(packed).decompressed_size or 0
            if at + length > start:
                yield at, zstd.decompress(packed[:size])
        except zstd.ZstdError as error:
            raise IntegrityError(f"run log {path}: a compressed block is damaged: {error}.") from error
        at += length
        packed = packed[size:]


class SegmentWriter:
    """Appends frames, seals full segments.

    Args:
        folder: where the segments lie.
        head: the chain hash to go on from.
        number: the segment to write on.
        offset: its length so far; whatever lies behind is cut off.
        segment_bytes: the size at which a segment is sealed.
    """

    def __init__(
        self,
        folder: Path,
        head: bytes,
        *,
        number: int = 1,
        offset: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._segments = Segments(folder)
        self._segment_bytes = segment_bytes
        self.head = head
        self.number = number
        self.offset = offset
        self._file = self._open(number, offset)

    def append(self, body: bytes) -> Position:
        """Write one record; it is in the kernel's hands when this returns.

        Raises:
            UnavailableError: when the disk refuses; what was there before is kept whole.
        """
        if self.offset >= self._segment_bytes:
            self._roll()
        chain = next_hash(self.head, body)
        line = b"".join((_HEAD, chain.hex().encode("ascii"), _MIDDLE, body, _TAIL))
        self._write(line)
        position = Position(self.number, self.offset, len(line))
        self.offset += len(line)
        self.head = chain
        return position

    def sync(self) -> None:
        """Ask the kernel to put everything on the disk."""
        os.fdatasync(self._file)

    def close(self, *, seal: bool = False) -> None:
        """Let go of the live segment; `seal` compresses it first, whatever its size."""
        if self._file < 0:
            return
        if seal and self.offset:
            self._seal()
        else:
            os.close(self._file)
        self._file = -1

    def _open(self, number: int, offset: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.open(self._segments.live_path(number), flags, 0o600)
        os.ftruncate(file, offset)
        return file

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            os.ftruncate(self._file, self.offset)
            raise storage_error(self._segments.folder, error) from error

    def _roll(self) -> None:
        try:
            self._seal()
            self.number += 1
            self.offset = 0
            self._file = self._open(self.number, 0)
        except OSError as error:
            raise storage_error(self._segments.folder, error) from error

    def _seal(self) -> None:
        live = self._segments.live_path(self.number)
        seal_segment(live, self._segments.sealed_path(self.number))
        os.close(self._file)
        live.unlink()


def seal_segment(live: Path, sealed: Path) -> None:
    """Compress a segment; the sealed file appears whole or not at all."""
    from backports import zstd

    partial = sealed.with_suffix(".tmp")
    try:
        with live.open("rb") as source, partial.open("wb") as target:
            while lines := source.readlines(BLOCK_BYTES):
                target.write(zstd.compress(b"".join(lines)))
            target.flush()
            os.fsync(target.fileno())
        partial.replace(sealed)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def storage_error(folder: Path, error: OSError) -> UnavailableError:
    """What to say when the disk refuses."""
    return UnavailableError(
        f"run log {folder}: cannot write: {error.strerror or error}.",
        hint="Everything judged so far is kept. Make room, then go on with `stanchion eval run --resume`.",
    )
