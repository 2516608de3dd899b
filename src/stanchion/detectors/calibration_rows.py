"""Rows to calibrate a detector with: texts with a label and what else matters about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.codec import Digest, digest_stream, digest_text
from stanchion.core.errors import DatasetError, UsageError, did_you_mean
from stanchion.core.origin import Origin
from stanchion.files.rows import Row, iter_rows

MOST_ROWS = 1_000_000
# The names of `DetectorInput.context` that hold texts.
CONTEXT_TEXTS = ("canaries", "document_ids", "documents", "foreign_markers", "question", "system_prompt")
_LABELS: Mapping[Any, int] = {
    **dict.fromkeys((1, "1", "unsafe", "true"), 1),
    **dict.fromkeys((0, "0", "benign", "safe", "false"), 0),
}


class RowFields(msgspec.Struct, frozen=True, kw_only=True):
    """What the fields of a row are called, and what holds where a row does not say.

    `context_as` names the detector context (`documents`, `question`, ...) that a plain text in the field
    `context` is given as.
    """

    text: str = "text"
    label: str = "label"
    language: tuple[str, ...] = ("language", "lang")
    group: str = "group"
    origin: Origin = Origin.USER
    context_as: str = ""


class LabelledText(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `label` is 1 (unsafe), 0 (benign), or None where rows without one are accepted."""

    text: str
    label: int | None
    place: str  # file:line
    origin: Origin = Origin.USER
    language: str = ""
    locale: str = ""
    group: str = ""
    context: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What counts as one: its group, or its text, so that copies of a text count once."""
        return f"group:{self.group}" if self.group else f"text:{digest_text(self.text)}"


class RowSource(msgspec.Struct, frozen=True, kw_only=True):
    """A file of rows, by name and digest of its bytes; never where it lies."""

    name: str
    digest: Digest
    benign: int
    unsafe: int


class RowSet(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of some files."""

    rows: tuple[LabelledText, ...]
    sources: tuple[RowSource, ...]

    def of(self, label: int) -> tuple[LabelledText, ...]:
        """The rows of one label."""
        return tuple(row for row in self.rows if row.label == label)


def read_rows(
    labelled: Iterable[Path],
    benign: Iterable[Path] = (),
    *,
    fields: RowFields | None = None,
    needs_label: bool = True,
) -> RowSet:
    """The rows of `labelled` files, and of `benign` ones, whose rows need no label and may not say unsafe.

    `needs_label` False takes rows without a label (fresh traffic); those that say one keep it.

    Raises:
        DatasetError: with file and line: a row without text, without a usable label, of an unknown origin.
        UsageError: when there are no rows at all.
    """
    names = fields or RowFields()
    rows: list[LabelledText] = []
    sources: list[RowSource] = []
    for path, given in [*((p, None) for p in labelled), *((p, 0) for p in benign)]:
        room = MOST_ROWS - len(rows) + 1  # no more are held than are allowed, however long the file is
        found = list(islice(_rows(path, names, given=given, needs_label=needs_label), room))
        if not found:
            raise DatasetError(str(path), 0, "there are no rows in it.")
        with path.open("rb") as stream:
            identity = digest_stream(stream)
        sources.append(
            RowSource(
                name=path.name,
                digest=identity,
                benign=sum(row.label == 0 for row in found),
                unsafe=sum(row.label == 1 for row in found),
            )
        )
        rows.extend(found)
        if len(rows) > MOST_ROWS:
            raise DatasetError(str(path), 0, f"more than {MOST_ROWS:,} rows.", hint="A sample will do.")
    if not rows:
        raise UsageError("there are no rows.", hint="Give --rows FILE or --benign FILE.")
    return RowSet(rows=tuple(rows), sources=tuple(sources))


def _rows(path: Path, names: RowFields, *, given: int | None, needs_label: bool) -> Iterator[LabelledText]:
    for row in iter_rows(path):
        yield LabelledText(
            text=_text(path, row, names),
            label=_label(path, row, names, given=given, needs_label=needs_label),
            place=f"{path.name}:{row.line}",
            origin=_origin(path, row, names),
            language=next((_plain(row, name) for name in names.language if row.value.get(name)), ""),
            locale=_plain(row, "locale"),
            group=_plain(row, names.group),
            context=_context(path, row, names),
        )


def _text(path: Path, row: Row, names: RowFields) -> str:
    text = row.value.get(names.text)
    if isinstance(text, str):
        return text
    if text is not None:
        raise DatasetError(
            str(path),
            row.line,
            f"what stands in the field {names.text!r} is no text ({type(text).__name__}).",
            hint="Write it in quotes.",
        )
    hint = did_you_mean(names.text, list(row.value)) if row.value else None
    raise DatasetError(str(path), row.line, f"there is no text in the field {names.text!r}.", hint=hint)


def _label(path: Path, row: Row, names: RowFields, *, given: int | None, needs_label: bool) -> int | None:
    said = row.value.get(names.label)
    if said is None or said == "":
        if given is None and needs_label:
            raise DatasetError(
                str(path),
                row.line,
                f"there is no label in the field {names.label!r}.",
                hint="Write 1 (unsafe) or 0 (benign); a file of benign rows without labels is --benign FILE.",
            )
        return given
    plain = said.strip().lower() if isinstance(said, str) else said
    label = _LABELS.get(plain) if isinstance(plain, str | int | float) else None
    if label is None:
        kind = type(said).__name__
        raise DatasetError(
            str(path), row.line, f"the label is no label ({kind}).", hint="Write 1 (unsafe) or 0 (benign)."
        )
    if given == 0 and label == 1:
        raise DatasetError(
            str(path), row.line, "a row of a benign file says that it is unsafe.", hint="Use --rows FILE."
        )
    return label


def _origin(path: Path, row: Row, names: RowFields) -> Origin:
    said = row.value.get("origin")
    if said is None or said == "":
        return names.origin
    try:
        return Origin(said)
    except ValueError as error:
        known = [origin.value for origin in Origin]
        raise DatasetError(
            str(path), row.line, "unknown origin.", hint=did_you_mean(str(said)[:40], known)
        ) from error


def _plain(row: Row, name: str) -> str:
    said = row.value.get(name)
    return "" if said is None else str(said)[:200]


def _context(path: Path, row: Row, names: RowFields) -> dict[str, tuple[str, ...]]:
    said = row.value.get("context")
    if isinstance(said, str):
        return {names.context_as: (said,)} if names.context_as and said else {}
    if not isinstance(said, dict):
        return {}
    found = {}
    for name, value in said.items():
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise DatasetError(str(path), row.line, f"context {name!r} must be a text or a list of texts.")
        found[name] = tuple(texts)
    return found
