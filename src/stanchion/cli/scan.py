"""`stanchion scan`: texts in files through one policy, one verdict for each row or file."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stanchion.cli.output import counted, note
from stanchion.core.decision import Effect, Surface
from stanchion.core.errors import DatasetError, ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.files.sarif import SarifResult
    from stanchion.guard.bulk import BulkScanner
    from stanchion.guard.bulk_files import FoundAt, Record

STANDARD_INPUT = "-"
_ROW_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_PACKED = (".gz", ".zst", ".zip")
_WARNINGS = frozenset({"info", "low", "medium"})


class ScanFormat(StrEnum):
    """What is printed."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    SARIF = "sarif"


class Rows(StrEnum):
    """What a file holds."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TEXT = "text"


class TierName(StrEnum):
    """How much work a text may cost."""

    DETERMINISTIC = "deterministic"
    BASE = "base"


class Tally:
    """What was seen."""

    def __init__(self) -> None:
        self.scanned = self.found = self.errors = self.skipped = 0

    def exit_code(self) -> ExitCode:
        """Found before unreadable before clean: a row that could not be read is never a pass."""
        if self.found:
            return ExitCode.FOUND
        return ExitCode.USAGE if self.errors else ExitCode.OK


def scan(
    ctx: typer.Context,
    files: Annotated[list[str], typer.Argument(help="Files to scan; - reads standard input.")],
    field: Annotated[
        str, typer.Option("--field", help="The field of a row that holds the text; dots go deeper.")
    ] = "text",
    id_field: Annotated[str, typer.Option("--id-field", help="The field that names a row.")] = "id",
    output_format: Annotated[
        ScanFormat, typer.Option("--format", help="Print text, one JSON document, JSON lines, or SARIF.")
    ] = ScanFormat.TEXT,
    rows: Annotated[
        Rows, typer.Option("--rows", help="What the files hold; auto goes by the suffix, and by --field.")
    ] = Rows.AUTO,
    tier: Annotated[
        TierName, typer.Option("--tier", help="Patterns and validators only, or all the policy enables.")
    ] = TierName.BASE,
    policy: Annotated[
        str, typer.Option("--policy", help="A packaged policy's name, or a policy file (.yaml).")
    ] = "default",
    surface: Annotated[
        Surface, typer.Option("--surface", help="Where the texts stand in an exchange.")
    ] = Surface.INPUT,
    detector: Annotated[
        list[str] | None, typer.Option("--detector", help="Only this detector; may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes for JSONL files.")] = 1,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Leave out what the policy allows, and the summary.")
    ] = False,
) -> None:
    """Scan rows or files, and print the policy's verdict on each.

    Rows are read from JSONL, CSV and Parquet; any other file is read whole. Exits 0 when everything is
    allowed, 1 when something is not, 2 when rows could not be read and nothing else was found.

    Example:
        echo '{"text": "What is your return policy?"}' | stanchion scan - --field text --format jsonl
    """
    make_scanner = partial(_make_scanner, ctx.obj, policy, tier.value, surface.value, tuple(detector or ()))
    tally = Tally()
    names = (field, id_field)
    asks_for_field = str(ctx.get_parameter_source("field")).endswith("COMMANDLINE")
    kind_of = partial(_kind, rows=rows, otherwise=Rows.JSONL if asks_for_field else Rows.TEXT)
    kept = _records(files, kind_of, make_scanner, names=names, workers=workers, tally=tally)
    _PRINTERS[output_format](_counted(kept, tally), tally, quiet)
    if not quiet:
        note(_summary(tally))
    raise typer.Exit(tally.exit_code())


def _make_scanner(
    settings_file: Path | None, policy: str, tier: str, surface: str, only: tuple[str, ...]
) -> BulkScanner:
    from stanchion.bootstrap import make_registry
    from stanchion.config import load_settings
    from stanchion.guard.bulk import BulkScanner, Tier, bulk_policy

    registry = make_registry(load_settings(file=settings_file))
    gc.freeze()  # what was loaded stays; going over it again and again would cost a tenth of the time
    found = bulk_policy(policy, registry, tier=Tier(tier), only=only)
    folder = Path(policy).parent if policy.endswith((".yaml", ".yml")) else Path()
    return BulkScanner(found, registry, surface=Surface(surface), folder=folder)


def _records(
    files: list[str],
    kind_of: Callable[[str], Rows],
    make_scanner: partial[BulkScanner],
    *,
    names: tuple[str, str],
    workers: int,
    tally: Tally,
) -> Iterator[Record]:
    """The records of all files; what stops one file does not stop the next."""
    scanner = make_scanner()
    for name in files:
        try:
            kind = kind_of(name)
            if workers > 1 and kind is Rows.JSONL and name != STANDARD_INPUT:
                from stanchion.guard.bulk_pool import pooled_records

                yield from pooled_records(make_scanner, Path(name), names=names, workers=workers)
            else:
                yield from _records_of(scanner, name, kind, names, tally)
        except DatasetError as error:
            tally.errors += 1
            note(f"{error.message}" + (f" {error.hint}" if error.hint else ""))


def _records_of(
    scanner: BulkScanner, name: str, kind: Rows, names: tuple[str, str], tally: Tally
) -> Iterator[Record]:
    from stanchion.guard.bulk_files import (
        json_records,
        line_records,
        stream_record,
        table_records,
        text_record,
    )

    if kind is Rows.TEXT:
        stream = sys.stdin.buffer
        is_input = name == STANDARD_INPUT
        record = stream_record(scanner, stream, file=name) if is_input else text_record(scanner, Path(name))
        if record is None:
            tally.skipped += 1
            note(f"{name}: binary file, not scanned")
        else:
            yield record
    elif name == STANDARD_INPUT:
        if kind is not Rows.JSONL:
            raise UsageError(f"standard input cannot be read as {kind.value}.", hint="Give a file.")
        for number, line in enumerate(sys.stdin.buffer, 1):
            yield from line_records(scanner, [(number, line)], file=name, names=names)
    elif kind is Rows.JSONL:
        yield from json_records(scanner, Path(name), names=names)
    else:
        yield from table_records(scanner, Path(name), row_format=kind.value, names=names)


def _kind(name: str, *, rows: Rows, otherwise: Rows) -> Rows:
    """What a file holds; a name that does not tell is rows where a field was asked for, else plain text."""
    if rows is not Rows.AUTO:
        return rows
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return Rows(_ROW_SUFFIXES.get(suffixes[-1] if suffixes else "", otherwise.value))


def _counted(records: Iterable[Record], tally: Tally) -> Iterator[Record]:
    """The records as they pass, counted; unreadable rows are told on stderr."""
    for record in records:
        tally.scanned += 1
        if record.error:
            tally.errors += 1
            note(f"{record.file}:{record.line}: {record.error}")
        elif record.decision != Effect.ALLOW.value:
            tally.found += 1
        yield record


def _row(record: Record) -> dict[str, Any]:
    """A record as it is printed."""
    row: dict[str, Any] = {
        "id": record.line if record.id is None else record.id,
        "file": record.file,
        "line": record.line,
        "decision": record.decision,
        "findings": record.findings,
    }
    if record.error:
        row["error"] = record.error
    return row


def _is_quiet(record: Record, quiet: bool) -> bool:
    return quiet and record.decision == Effect.ALLOW.value


def _print_jsonl(records: Iterable[Record], _tally: Tally, quiet: bool) -> None:
    write, encode = sys.stdout.buffer.write, msgspec.json.Encoder().encode
    for record in records:
        if not _is_quiet(record, quiet):
            write(encode(_row(record)) + b"\n")
    sys.stdout.buffer.flush()


def _print_json(records: Iterable[Record], tally: Tally, quiet: bool) -> None:
    results = [_row(record) for record in records if not _is_quiet(record, quiet)]
    document = {
        "scanned": tally.scanned,
        "found": tally.found,
        "errors": tally.errors,
        "skipped": tally.skipped,
        "results": results,
    }
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def _print_text(records: Iterable[Record], _tally: Tally, quiet: bool) -> None:
    for record in records:
        if not _is_quiet(record, quiet):
            for found in record.findings:
                typer.echo(_text_line(record, found))


def _text_line(record: Record, found: FoundAt) -> str:
    is_row = record.id is not None
    place = f"{record.line}" if is_row else f"{found.line}:{found.column}"
    inside = f" at {found.line}:{found.column} of the text" if is_row else ""
    by = found.rule or found.detector
    return f"{record.file}:{place}: {found.category} ({by}, {found.score:.2f}){inside} -> {record.decision}"


def _print_sarif(records: Iterable[Record], _tally: Tally, quiet: bool) -> None:
    from stanchion.core.version import package_version
    from stanchion.files.sarif import sarif_log

    results = [
        _sarif_result(record, found)
        for record in records
        if not _is_quiet(record, quiet)
        for found in record.findings
    ]
    log = sarif_log(results, tool_version=package_version())
    typer.echo(msgspec.json.format(msgspec.json.encode(log), indent=2))


def _sarif_result(record: Record, found: FoundAt) -> SarifResult:
    from stanchion.core.codec import digest
    from stanchion.files.sarif import SarifResult

    is_row = record.id is not None
    by = found.rule or found.detector
    is_allowed = record.decision == Effect.ALLOW.value
    level = "note" if is_allowed else "warning" if found.severity in _WARNINGS else "error"
    return SarifResult(
        rule=by,
        message=f"{found.category} found by {found.detector} with a score of {found.score:.2f}.",
        file=record.file,
        level=level,
        line=record.line if is_row else found.line,
        column=0 if is_row else found.column,
        fingerprint=digest([record.file, record.line, by, found.start, found.end]).removeprefix("sha256:"),
        properties={"decision": record.decision, "score": found.score, "severity": found.severity},
    )


def _summary(tally: Tally) -> str:
    parts = [f"{counted(tally.scanned, 'text')} scanned", f"{tally.found:,} not allowed"]
    if tally.errors:
        parts.append(f"{tally.errors:,} not read")
    if tally.skipped:
        parts.append(f"{tally.skipped:,} skipped")
    return ", ".join(parts)


_PRINTERS = {
    ScanFormat.TEXT: _print_text,
    ScanFormat.JSON: _print_json,
    ScanFormat.JSONL: _print_jsonl,
    ScanFormat.SARIF: _print_sarif,
}
