"""Files of rows and plain files for a bulk scan: one record for each, in order, in flat memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from stanchion.core.decision import Effect, strictest
from stanchion.core.errors import DatasetError
from stanchion.core.finding import Finding
from stanchion.files.rows import iter_lines, iter_rows
from stanchion.guard.bulk import BulkScanner

BLOCK_CHARACTERS = 65_536
OVERLAP_CHARACTERS = 8_192  # the longest match that is found wherever it stands in a plain file
_PEEK_BYTES = 8_192
ERROR = "error"


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


def row_record(scanner: BulkScanner, *, file: str, line: int, value: Any, names: tuple[str, str]) -> Record:
    """The record of a decoded row; `names` are the fields of the text (dots go deeper) and of the id."""
    if type(value) is not dict:
        return Record(file, line, ERROR, error="a row must be a JSON object")
    row_id = value.get(names[1], line)
    text = _at(value, names[0])
    if type(text) is not str:
        what = "is missing" if text is None else f"is not text but {type(text).__name__}"
        return Record(file, line, ERROR, row_id, error=f"the field {names[0]!r} {what}")
    verdict = scanner.judge(text)
    if not verdict.findings:
        return Record(file, line, verdict.effect.value, row_id)
    return Record(file, line, verdict.effect.value, row_id, tuple(map(found_at, verdict.findings)))


def line_record(
    scanner: BulkScanner, *, file: str, line: int, data: bytes, names: tuple[str, str]
) -> Record | None:
    """The record of one line of JSONL; None for an empty line."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if not data.strip():
            return None
        return Record(file, line, ERROR, error=f"not a row of JSON: {_plain(error)}")
    return row_record(scanner, file=file, line=line, value=value, names=names)


def json_records(scanner: BulkScanner, path: Path, *, names: tuple[str, str]) -> Iterator[Record]:
    """The records of a JSONL file; a row that cannot be read is a record too.

    Raises:
        DatasetError: when the file itself cannot be read on.
    """
    for number, data in iter_lines(path):
        record = line_record(scanner, file=str(path), line=number, data=data, names=names)
        if record is not None:
            yield record


def table_records(
    scanner: BulkScanner, path: Path, *, row_format: str, names: tuple[str, str]
) -> Iterator[Record]:
    """The records of a CSV or Parquet file.

    Raises:
        DatasetError: at the first row that cannot be read.
    """
    for row in iter_rows(path, row_format=row_format):
        yield row_record(scanner, file=str(path), line=row.line, value=row.value, names=names)


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
    buffered = io.BufferedReader(stream)  # type: ignore[type-var]  # any binary stream will do
    if b"\x00" in buffered.peek(_PEEK_BYTES)[:_PEEK_BYTES]:
        return None
    reader = io.TextIOWrapper(buffered, encoding="utf-8", errors="replace", newline="")
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
    return str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
