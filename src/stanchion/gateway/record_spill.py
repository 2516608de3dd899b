"""Records beside the store: a file of lines for what the store does not take at the moment.

A line is whole or not there: what could not be written in full is taken back, and a line that a crash cut off
is never glued to the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from stanchion.gateway.ports import ExchangeRecord

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(ExchangeRecord).decode


class Spill:
    """One file, readable by its owner only, of at most `most_bytes`. One thread uses it at a time."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._is_cut = True  # until we have looked at its end

    def add(self, records: Sequence[ExchangeRecord]) -> int:
        """Append records; how many there was room for, by the limit and on the disk."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            return 0
        try:
            kept = self._add(handle, records)
            is_empty = os.fstat(handle).st_size == 0
        finally:
            os.close(handle)
        if is_empty:
            self.clear()
        return kept

    def _add(self, handle: int, records: Sequence[ExchangeRecord]) -> int:
        size = os.fstat(handle).st_size
        start = b"\n" if self._is_cut and size and os.pread(handle, 1, size - 1) != b"\n" else b""
        lines: list[bytes] = []
        total = size + len(start)
        for record in records:
            line = _encode(record) + b"\n"
            total += len(line)
            if total > self._most_bytes:
                break
            lines.append(line)
        data = start + b"".join(lines)
        try:
            is_whole = not lines or os.write(handle, data) == len(data)
        except OSError:
            is_whole = False
        if not is_whole:  # the disk is full: half a batch would be counted wrongly, and end in half a line
            os.ftruncate(handle, size)
            return 0
        self._is_cut = self._is_cut and not lines
        return len(lines)

    def batches(self, size: int) -> Iterator[tuple[list[ExchangeRecord], int]]:
        """What was written, so many at a time, each with the number of lines that nobody can read."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            records: list[ExchangeRecord] = []
            unread = 0
            for line in file:
                if not line.strip():
                    continue
                try:
                    records.append(_decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    unread += 1
                if len(records) == size:
                    yield records, unread
                    records, unread = [], 0
            if records or unread:
                yield records, unread

    def clear(self) -> None:
        """Forget everything, once the store has it."""
        self.path.unlink(missing_ok=True)
        self._is_cut = True
