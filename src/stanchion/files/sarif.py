"""SARIF 2.1.0 (OASIS), the format that code-scanning pages read. Columns count code points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from stanchion.core.errors import Problem

SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "note": "note"}


class SarifResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result: a rule that matched at a place.

    `level` is `error`, `warning` or `note`. Lines and columns are 1-based, `end_column` is exclusive; 0
    leaves a number out. `fingerprint` keeps a result the same when lines move.
    """

    rule: str
    message: str
    file: str
    level: str = "error"
    line: int = 0
    column: int = 0
    end_line: int = 0
    end_column: int = 0
    fingerprint: str = ""
    properties: dict[str, Any] = msgspec.field(default_factory=dict)


def from_problem(problem: Problem) -> SarifResult:
    """The result that a problem of a file means."""
    message = problem.message if problem.hint is None else f"{problem.message} {problem.hint}"
    return SarifResult(
        rule=problem.rule,
        message=message,
        file=problem.file,
        level=_LEVELS.get(problem.severity, "error"),
        line=problem.line,
        column=problem.column,
    )


def sarif_log(
    results: Iterable[SarifResult],
    *,
    tool_version: str,
    tool_name: str = "stanchion",
    rules: Mapping[str, str] | None = None,
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One SARIF log with one run. `rules` gives the short description of a rule id."""
    known: dict[str, int] = {}
    rows = [_result(result, known) for result in results]
    titles = rules or {}
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": tool_name,
                "version": tool_version,
                "rules": [
                    {"id": rule, "shortDescription": {"text": titles.get(rule, rule)}} for rule in known
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": rows,
    }
    if properties:
        run["properties"] = dict(properties)
    return {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}


def _result(result: SarifResult, known: dict[str, int]) -> dict[str, Any]:
    index = known.setdefault(result.rule, len(known))
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(result.file)}}
    region = _region(result)
    if region:
        location["region"] = region
    row: dict[str, Any] = {
        "ruleId": result.rule,
        "ruleIndex": index,
        "level": result.level,
        "message": {"text": result.message},
        "locations": [{"physicalLocation": location}],
    }
    if result.fingerprint:
        row["partialFingerprints"] = {"stanchion/v1": result.fingerprint}
    if result.properties:
        row["properties"] = result.properties
    return row


def _region(result: SarifResult) -> dict[str, int]:
    pairs = {
        "startLine": result.line,
        "startColumn": result.column,
        "endLine": result.end_line,
        "endColumn": result.end_column,
    }
    return {name: number for name, number in pairs.items() if number > 0} if result.line > 0 else {}


def _uri(file: str) -> str:
    """A path as a URI reference: relative stays relative, absolute becomes `file://`."""
    from urllib.parse import quote

    path = quote(file.replace("\\", "/"), safe="/-._~")
    return f"file://{path}" if path.startswith("/") else path
