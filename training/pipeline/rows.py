"""The rows that training and reporting read: `../shared/data`, with digests, one record per text."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Row:
    """One text: `label` 1 = attack; `source` is what is left out together in leave-one-source-out."""

    text: str
    label: int
    source: str
    language: str
    group: str = ""  # rows made from one another share it
    kind: str = ""  # the family of a made row, the category of another


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: its name below the data folder, sha256 and number of rows used."""

    name: str
    digest: str
    rows: int


def read(name: str, *, data: Path = DATA, label: int | None = None) -> tuple[list[Row], SourceFile]:
    """All rows of one file; `label` replaces the file's own (for files of other tasks)."""
    path = next(p for p in (data / f"{name}.jsonl", data / f"{name}.jsonl.gz") if p.is_file())
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    source = name.partition("/")[2].removesuffix(".train").removesuffix(".dev")
    rows = []
    for line in filter(None, lines):
        value = json.loads(line)
        own = int(value["label"]) if label is None else label
        rows.append(Row(value["text"], own, source, value["lang"], kind=str(value.get("category") or "")))
    return rows, SourceFile(path.relative_to(data).as_posix(), hashlib.sha256(raw).hexdigest(), len(rows))


def read_all(
    names: Iterable[str], *, data: Path = DATA, label: int | None = None
) -> tuple[list[Row], list[SourceFile]]:
    """The rows of several files, in order."""
    rows: list[Row] = []
    files = []
    for name in names:
        found, file = read(name, data=data, label=label)
        rows += found
        files.append(file)
    return rows, files
