"""Criteria, kept beside a run, and read from the files that people write them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from stanchion.core.errors import UsageError
from stanchion.evals.criteria import CriterionModel
from stanchion.files.document import read_document
from stanchion.files.schema import FileModel, load_file

FILE = "criteria.json"
_LIST: TypeAdapter[tuple[CriterionModel, ...]] = TypeAdapter(tuple[CriterionModel, ...])


class GateFile(FileModel):
    """`gate.yaml`: criteria that stand apart from any suite."""

    version: int = 1
    criteria: tuple[CriterionModel, ...] = Field(min_length=1)


def keep_criteria(folder: Path, criteria: Sequence[CriterionModel]) -> None:
    """Write a suite's criteria into the run's folder, so that the run can be judged without the suite."""
    if criteria:
        data = [criterion.model_dump(mode="json", exclude_defaults=True) for criterion in criteria]
        (folder / FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def kept_criteria(folder: Path) -> tuple[CriterionModel, ...]:
    """The criteria that lie beside a run; none when it has none.

    Raises:
        UsageError: when the file was damaged.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    try:
        return _LIST.validate_json(path.read_bytes(), strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{path}: cannot be read: {first['msg']}.", hint="Give the criteria with --criteria."
        ) from error


def read_criteria(path: Path, *, suite_id: str = "") -> tuple[CriterionModel, ...]:
    """The criteria of a `gate.yaml`, of a suite, or of a feature's `evals.yaml` (the evals of `suite_id`).

    Raises:
        FilesError: for a file that is none of these.
        UsageError: when it has no criterion for the suite.
    """
    keys = read_document(path).value
    known: Any = keys if isinstance(keys, dict) else {}
    if "suite" in known:
        from stanchion.evals.suite import load_suite

        found = load_suite(path).file.criteria
    elif "evals" in known:
        found = _of_evals(path, known["evals"], suite_id)
    else:
        found = load_file(path, GateFile).value.criteria
    if not found:
        raise UsageError(
            f"{path} has no criterion{f' for suite {suite_id!r}' if suite_id else ''}.",
            hint="Add `criteria:` with a metric and a limit.",
        )
    return found


def _of_evals(path: Path, evals: Any, suite_id: str) -> tuple[CriterionModel, ...]:
    """The criteria of every eval whose suite file has this id; an eval without any takes its suite's own."""
    found: list[CriterionModel] = []
    for entry in evals if isinstance(evals, list) else []:
        file = path.parent / str(entry.get("suite", ""))
        suite = read_document(file).value
        if not isinstance(suite, dict) or (suite_id and suite.get("suite") != suite_id):
            continue
        own = entry.get("criteria")
        found += _LIST.validate_python(own, strict=False) if own else read_criteria(file)
    return tuple(found)
