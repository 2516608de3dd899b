"""Rows of a dataset as a stream: JSONL, CSV and Parquet, packed or not, in flat memory.

Formats by suffix: `.jsonl` (`.ndjson`), `.csv`, `.parquet`; the first two also as `.gz`, `.zst` and `.zip`.
A zip holds exactly one file; folders and `__MACOSX` entries do not count, and a packed file inside is
refused. Every limit ends with a DatasetError that names the file and the line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.errors import DatasetError, MissingExtraError, did_you_mean
from stanchion.files.packed import RowLimits, open_packed, zip_member_name

__all__ = ["ROW_FORMATS", "Row", "RowLimits", "iter_lines", "iter_rows", "row_format_of"]

ROW_FORMATS = ("jsonl", "csv", "parquet")
_FORMAT_OF_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_PACKED = (".gz", ".zst", ".zip")
DEFAULT_LIMITS = RowLimits()
_BOM = b"\xef\xbb\xbf"
_PARQUET_BATCH = 1024


class Row(msgspec.Struct, frozen=True):
    """One row; `line` is 1-based: the first line of the row, or the row's number in Parquet."""

    line: int
    value: dict[str, Any]


def iter_rows(
    path: Path, *, row_format: str | None = None, limits: RowLimits = DEFAULT_LIMITS
) -> Iterator[Row]:
    """The rows of a file, one at a time; empty lines are left out.

    CSV values are text, keyed by the header; `row_format` overrides the suffix.

    Raises:
        DatasetError: at the first row that cannot be read, with file and line.
        MissingExtraError: for Parquet without the extra `parquet`.
    """
    match row_format or row_format_of(path):
        case "jsonl":
            return _json_rows(path, limits)
        case "csv":
            return _csv_rows(path, limits)
        case "parquet":
            return _parquet_rows(path, limits)
        case other:
            raise DatasetError(
                str(path), 0, f"unknown row format {other!r}.", hint=did_you_mean(other, ROW_FORMATS)
            )


def iter_lines(path: Path, *, limits: RowLimits = DEFAULT_LIMITS) -> Iterator[tuple[int, bytes]]:
    """The raw lines of a file with their numbers, 1-based, without their line ends; for scans at full speed.

    Raises:
        DatasetError: when the file cannot be read, or a line or the unpacked size is beyond its limit.
    """
    most = limits.line_bytes + 2  # the line and its end
    name = str(path)
    with open_packed(path, limits) as stream:
        line = stream.readline(most)
        if line.startswith(_BOM):
            line = line[3:]
        number = 0
        while line:
            number += 1
            if line[-1] == 10:
                line = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
            if len(line) > limits.line_bytes:
                raise _long_line(name, number, limits)
            yield number, line
            line = stream.readline(most)


def row_format_of(path: Path) -> str:
    """`jsonl`, `csv` or `parquet`, by suffix.

    Raises:
        DatasetError: when the suffix says nothing.
    """
    found = _format_by_suffix(path)
    if found is None and path.suffix.lower() == ".zip":
        found = _format_by_suffix(Path(zip_member_name(path)))
    if found is None:
        raise DatasetError(
            str(path),
            0,
            "the suffix names no row format.",
            hint="Known: .jsonl .ndjson .csv .parquet, the text formats also with .gz .zst .zip; or name it.",
        )
    return found


def _format_by_suffix(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _FORMAT_OF_SUFFIX.get(suffixes[-1] if suffixes else "")


def _long_line(name: str, number: int, limits: RowLimits) -> DatasetError:
    return DatasetError(
        name,
        number,
        f"longer than the limit of {limits.line_bytes:,} bytes.",
        hint="Split the row; a line is read whole, so its length has a limit.",
    )


def _json_rows(path: Path, limits: RowLimits) -> Iterator[Row]:
    decode = msgspec.json.Decoder().decode
    name = str(path)
    for number, line in iter_lines(path, limits=limits):
        if not line or line.isspace():
            continue
        try:
            value = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise _bad_json(name, number, line, error) from error
        if type(value) is not dict:
            kind = type(value).__name__.replace("NoneType", "null")
            raise DatasetError(name, number, f"a row must be a JSON object, not a {kind}.")
        yield Row(number, value)


def _bad_json(name: str, number: int, line: bytes, error: Exception) -> DatasetError:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        reason = f"not UTF-8: byte 0x{line[bad.start]:02x} at offset {bad.start} of the line."
        return DatasetError(name, number, reason, hint="Save the file as UTF-8.")
    if isinstance(error, RecursionError):
        return DatasetError(name, number, "the JSON is nested too deeply.")
    reason = str(error).removeprefix("JSON is malformed: ")
    return DatasetError(name, number, f"not valid JSON: {reason}.", hint="One JSON object a line.")


def _csv_rows(path: Path, limits: RowLimits) -> Iterator[Row]:
    name = str(path)
    source = _CsvLines(path, limits)
    csv.field_size_limit(max(csv.field_size_limit(), limits.line_bytes))
    reader = csv.reader(source, strict=True)
    header: list[str] | None = None
    while True:
        start = source.number + 1
        source.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise DatasetError(name, start, f"not valid CSV: {error}.") from error
        if not cells:
            continue
        if header is None:
            header = _checked_header(name, start, cells)
        elif len(cells) != len(header):
            reason = f"{len(cells)} values, but the header names {len(header)} columns."
            raise DatasetError(name, start, reason, hint="Quote values that hold commas.")
        else:
            yield Row(start, dict(zip(header, cells, strict=True)))
    if header is None:
        raise DatasetError(name, 0, "the file is empty; a CSV begins with a header.")


def _checked_header(name: str, line: int, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    doubled = sorted({cell for cell in header if header.count(cell) > 1})
    if "" in header:
        raise DatasetError(name, line, f"column {header.index('') + 1} of the header has no name.")
    if doubled:
        raise DatasetError(name, line, f"the header names {', '.join(map(repr, doubled))} more than once.")
    return header


class _CsvLines:
    """Decoded lines for the csv module, which asks for more while a quoted value is open."""

    def __init__(self, path: Path, limits: RowLimits) -> None:
        self.number = 0
        self._name = str(path)
        self._limits = limits
        self._lines = iter_lines(path, limits=limits)
        self._row_bytes = 0

    def begin_row(self) -> None:
        self._row_bytes = 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        self._row_bytes += len(line) + 1
        if self._row_bytes > self._limits.line_bytes + 1:
            raise _long_line(self._name, self.number, self._limits)
        if b"\0" in line:
            reason = f"a NUL byte at offset {line.index(0)} of the line."
            raise DatasetError(self._name, self.number, reason, hint="Is this a text file?")
        try:
            return line.decode("utf-8") + "\n"
        except UnicodeDecodeError as error:
            reason = f"not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start} of the line."
            raise DatasetError(self._name, self.number, reason, hint="Save the file as UTF-8.") from error


def _parquet_rows(path: Path, limits: RowLimits) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("reading Parquet", "parquet") from error
    name = str(path)
    if any(suffix in _PACKED for suffix in path.suffixes):
        raise DatasetError(name, 0, "Parquet is packed already; unpack the outer archive.")
    number = 0
    try:
        with open_packed(path, limits) as stream, parquet.ParquetFile(stream) as table:
            groups = table.metadata
            unpacked = sum(groups.row_group(i).total_byte_size for i in range(groups.num_row_groups))
            if unpacked > limits.output_bytes:
                reason = f"unpacks to {unpacked:,} bytes, more than the limit of {limits.output_bytes:,}."
                raise DatasetError(name, 0, reason)
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, value)
    except (pyarrow.ArrowException, OSError, io.UnsupportedOperation) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(name, number, f"not a readable Parquet file: {reason}") from error
