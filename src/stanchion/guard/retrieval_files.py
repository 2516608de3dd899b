"""Documents to index, from rows of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from stanchion.core.errors import DatasetError
from stanchion.files.rows import iter_rows
from stanchion.guard.retrieval_index import SourceDocument


def read_documents(path: Path) -> Iterator[SourceDocument]:
    """The documents of a file: `id`, `text`, `source`, `tenant`, `readers`, `changed_at` (ISO 8601).

    Raises:
        DatasetError: at the first row that is none, with file and line.
    """
    for row in iter_rows(path):
        try:
            yield msgspec.convert(row.value, SourceDocument)
        except msgspec.ValidationError as error:
            raise DatasetError(str(path), row.line, f"this is no document: {error}.") from error


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Ids and texts of the rows of a file.

    Raises:
        DatasetError: at the first row without them.
    """
    for row in iter_rows(path):
        document_id, text = row.value.get("id"), row.value.get("text")
        if not isinstance(document_id, str) or not isinstance(text, str):
            raise DatasetError(str(path), row.line, "a row needs `id` and `text`.")
        yield document_id, text
