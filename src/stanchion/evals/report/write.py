"""Writing a report: the file's extension says in which form."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from stanchion.core.errors import UsageError, did_you_mean
from stanchion.evals.report.formats import render_json, render_junit, render_markdown, render_sarif
from stanchion.evals.report.html import render_html
from stanchion.evals.report.model import Report

RENDERERS: dict[str, Callable[[Report], str]] = {
    ".html": render_html,
    ".json": render_json,
    ".md": render_markdown,
    ".sarif": render_sarif,
    ".xml": render_junit,
}


def check_extension(path: Path) -> None:
    """Raise UsageError, before any work is done, for a file whose extension names no form of report."""
    if path.suffix.lower() not in RENDERERS:
        raise UsageError(
            f"no report is written as {path.suffix or path.name!r}.",
            hint=did_you_mean(path.suffix, RENDERERS),
        )


def write_report(path: Path, report: Report) -> Path:
    """Write a report whole or not at all.

    Raises:
        UsageError: for an unknown extension, or a place that cannot be written.
    """
    check_extension(path)
    text = RENDERERS[path.suffix.lower()](report)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        reason = error.strerror or type(error).__name__
        raise UsageError(f"the report {str(path)!r} cannot be written: {reason}.") from error
    return path
