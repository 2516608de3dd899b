"""Files of rows and plain files for a bulk scan: one record for each, in order, in flat memory."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from stanchion.core.decision import Effect, strictest
from stanchion.core.errors import DatasetError
from stanchion.core.finding import Finding
from stanchion.files.rows import iter_lines, iter_rows
from stanchion.guard.bulk import BulkScanner

BLOCK_CHARACTERS = 65_536
OVERLAP_CHARACTERS = 8_192  # the longest match that is found wherever it stands in a plain file
_PEEK_BYTES = 8_192
_READ_BYTES = 1 << 16
BATCH_ROWS = 64
ERROR = "error"
_T = TypeVar("_T")


class FoundAt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A finding as it is printed: code points and, 1-based, line and column of the text it is in."""

    detector: str
    category: str
    start: int
    end: int
    score: float
    severity: str
    line: int
    column: int
    rule: str = ""
    view: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict on one row or one plain file. A row that could not be read has the decision `error`."""

    file: str
    line: int
    decision: str
    id: Any = None
    findings: tuple[FoundAt, ...] = msgspec.field(default_factory=tuple)
    error: str = ""


class _Read(msgspec.Struct, frozen=True):
    """A row as it was read: its text, or what is wrong with it."""

    line: int
    id: Any = None
    text: str = ""
    error: str = ""


def line_records(
    scanner: BulkScanner, lines: Iterable[tuple[int, bytes]], *, file: str, names: tuple[str, str]
) -> list[Record]:
    """The records of some numbered lines of JSONL; empty lines have none.

    `names` are the fields of the text (dots go deeper) and of the id.
    """
    rows = [_read_line(number, data, names) for number, data in lines]
    return _records(scanner, [row for row in rows if row is not None], file)


def json_records(scanner: BulkScanner, path: Path, *, names: tuple[str, str]) -> Iterator[Record]:
    """The records of a JSONL file; a row that cannot be read is a record too.

    Raises:
        DatasetError: when the file itself cannot be read on; what was read before is given first.
    """
    for lines in _batches(iter_lines(path)):
        yield from line_records(scanner, lines, file=str(path), names=names)


def _batches(items: Iterator[_T]) -> Iterator[list[_T]]:
    """Lists of at most BATCH_ROWS items; what fails in between comes after the items before it."""
    batch: list[_T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
    except DatasetError:
        yield batch
        raise
    yield batch


def _read_line(number: int, data: bytes, names: tuple[str, str]) -> _Read | None:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if not data.strip():
            return None
        return _Read(number, error=f"not a row of JSON: {_plain(error)}")
    return _read_row(number, value, names)


def _read_row(number: int, value: Any, names: tuple[str, str]) -> _Read:
    if type(value) is not dict:
        return _Read(number, error="a row must be a JSON object")
    row_id = value.get(names[1], number)
    text = _at(value, names[0])
    if type(text) is not str:
        what = "is missing" if text is None else f"is not text but {type(text).__name__}"
        return _Read(number, row_id, error=f"the field {names[0]!r} {what}")
    return _Read(number, row_id, text)


def _records(scanner: BulkScanner, rows: list[_Read], file: str) -> list[Record]:
    verdicts = iter(scanner.judge_many([row.text for row in rows if not row.error]))
    records = []
    for row in rows:
        if row.error:
            records.append(Record(file, row.line, ERROR, row.id, error=row.error))
            continue
        verdict = next(verdicts)
        findings = tuple(map(found_at, verdict.findings)) if verdict.findings else ()
        records.append(Record(file, row.line, verdict.effect.value, row.id, findings))
    return records


def table_records(
    scanner: BulkScanner, path: Path, *, row_format: str, names: tuple[str, str]
) -> Iterator[Record]:
    """The records of a CSV or Parquet file.

    Raises:
        DatasetError: at the first row that cannot be read.
    """
    for rows in _batches(iter_rows(path, row_format=row_format)):
        yield from _records(scanner, [_read_row(row.line, row.value, names) for row in rows], str(path))


def text_record(scanner: BulkScanner, path: Path) -> Record | None:
    """The record of a plain file, read in overlapping blocks; None for a binary file.

    Bytes that are not UTF-8 are read as U+FFFD.

    Raises:
        DatasetError: when the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream_record(scanner, stream, file=str(path))
    except OSError as error:
        raise DatasetError(str(path), 0, f"cannot be read: {error.strerror}.") from error


def stream_record(scanner: BulkScanner, stream: BinaryIO, *, file: str) -> Record | None:
    """The same for an open stream of bytes."""
    reader = _Text(stream)
    if reader.is_binary:
        return None
    size = min(BLOCK_CHARACTERS, scanner.text_limit)
    place = _Place()
    effect = Effect.ALLOW
    found: list[FoundAt] = []
    block = reader.read(size)
    while True:
        is_last = len(block) < size
        cut = len(block) if is_last else _cut(block)
        verdict = scanner.judge(block)
        effect = strictest(effect, verdict.effect)
        for finding in verdict.findings:
            if is_last or finding.location.start < cut:  # others begin in the next block, too
                _add(found, found_at(finding, place))
        if is_last:
            return Record(file, 1, effect.value, None, tuple(found))
        place = place.after(block[:cut])
        block = block[cut:] + reader.read(size - (len(block) - cut))


class _Text:
    """The characters of a stream of UTF-8, some at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        first = stream.read(_READ_BYTES)
        self.is_binary = b"\x00" in first[:_PEEK_BYTES]
        self._ready = self._decode(first, final=not first)
        self._is_over = not first

    def read(self, size: int) -> str:
        """The next `size` characters, fewer only at the end."""
        while len(self._ready) < size and not self._is_over:
            data = self._stream.read(_READ_BYTES)
            self._is_over = not data
            self._ready += self._decode(data, final=self._is_over)
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


class _Place(msgspec.Struct, frozen=True):
    """Where in a file a block begins: characters, whole lines, and characters of its line before it."""

    characters: int = 0
    lines: int = 0
    column: int = 0

    def after(self, text: str) -> _Place:
        """The place behind a text that begins here."""
        last = text.rfind("\n")
        column = self.column + len(text) if last < 0 else len(text) - last - 1
        return _Place(self.characters + len(text), self.lines + text.count("\n"), column)


_START = _Place()


def found_at(finding: Finding, place: _Place | None = None) -> FoundAt:
    """A finding in a block that begins at `place`, as it is printed."""
    at = finding.location
    place = place or _START
    return FoundAt(
        detector=finding.detector,
        category=finding.category,
        start=at.start + place.characters,
        end=at.end + place.characters,
        score=round(finding.score, 4),
        severity=finding.severity.value,
        line=at.line + place.lines,
        column=at.column + (place.column if at.line == 1 else 0),
        rule=finding.rule,
        view=finding.view,
    )


def _add(found: list[FoundAt], new: FoundAt) -> None:
    """Leave out the tail of a match that the block before saw whole."""
    if not any(old.rule == new.rule and old.start < new.end and new.start < old.end for old in found[-64:]):
        found.append(new)


def _cut(block: str) -> int:
    """Where the next block begins: at a line's start, with enough of this one before its end."""
    at = len(block) - min(OVERLAP_CHARACTERS, len(block) // 2)
    newline = block.rfind("\n", at - OVERLAP_CHARACTERS // 2, at)
    return newline + 1 if newline > 0 else at


def _at(value: dict[str, Any], name: str) -> Any:
    """The value of a field; a dotted name goes into nested objects unless a field has that very name."""
    if name in value or "." not in name:
        return value.get(name)
    found: Any = value
    for step in name.split("."):
        found = found.get(step) if type(found) is dict else None
    return found


def _plain(error: Exception) -> str:
    """What a decoder says, without the text it quotes."""
    if isinstance(error, UnicodeDecodeError):
        return "it holds bytes that are not UTF-8"
    return str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
