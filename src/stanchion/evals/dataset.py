"""Cases from the rows of a file, or of a dataset's folder as Hugging Face lays it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from stanchion.core.errors import DatasetError, FilesError, UsageError, did_you_mean
from stanchion.evals.case import Case
from stanchion.evals.case_maker import CaseMaker, seeded_share
from stanchion.evals.suite_file import CaseModel, DatasetModel
from stanchion.evals.templates import render_all
from stanchion.files.document import compose
from stanchion.files.rows import ROW_FORMATS, Row, iter_rows

_FIELDS = tuple(CaseModel.model_fields)
_NESTED = ("expect", "vars")
_SEPARATED = ("tags",)
_TEXTS = ("prompt", "category", "cluster", "language", "source", "id")  # numbers are taken as texts here
_SUFFIXES = tuple(f".{name}" for name in (*ROW_FORMATS, "ndjson"))
_PACKED = (".gz", ".zst", ".zip")


def dataset_files(path: Path, *, config: str = "", split: str = "") -> list[Path]:
    """The files behind a dataset's path, in order: the file itself, or those of a folder.

    A folder is read as the dataset hub lays it out: by the `configs` of its README where there are any, else
    every file of rows below it; `split` then keeps files whose name begins with it, or that lie in a folder
    of that name.

    Raises:
        DatasetError: when nothing is there, or nothing is left.
    """
    if not path.exists():
        raise DatasetError(str(path), 0, "there is no such file or folder.", hint="Paths start at the suite.")
    if path.is_file():
        return [path]
    declared = _declared_files(path, config=config, split=split)
    files = declared if declared is not None else _found_files(path, split)
    if files:
        return files
    if list(path.rglob("*.arrow")):
        raise DatasetError(str(path), 0, "this folder holds Arrow files.", hint="Save it with to_parquet().")
    wanted = f" of split {split!r}" if split else ""
    raise DatasetError(
        str(path), 0, f"no rows{wanted} in this folder.", hint=f"Read: {', '.join(_SUFFIXES)}, packed or not."
    )


def dataset_cases(model: DatasetModel, files: list[Path], maker: CaseMaker, *, seed: int) -> Iterator[Case]:
    """The cases of a dataset's files, streaming.

    Raises:
        DatasetError: at the first row that is no case, with file and line.
    """
    left = model.limit
    for path in files:
        for row in iter_rows(path, row_format=model.format):
            if not _is_kept(row, model, path, seed):
                continue
            if left is not None:
                if left == 0:
                    return
                left -= 1
            yield _case(row, model, path, maker)


def _is_kept(row: Row, model: DatasetModel, path: Path, seed: int) -> bool:
    for column, values in model.where.items():
        if column not in row.value:
            raise DatasetError(
                str(path), row.line, f"no column {column!r}.", hint=did_you_mean(column, row.value)
            )
        if str(row.value[column]) not in values:
            return False
    return model.share >= 1 or seeded_share(f"{seed}\0{path.name}\0{row.line}") < model.share


def _case(row: Row, model: DatasetModel, path: Path, maker: CaseMaker) -> Case:
    try:
        written = _mapped(row.value, model) if model.fields else _as_written(row.value)
        return maker.make(
            CaseModel.model_validate(written), where=f"{path.name}:{row.line}", is_template=False
        )
    except pydantic.ValidationError as error:
        reason, hint = _explain(error)
        raise DatasetError(str(path), row.line, reason, hint=hint) from None
    except DatasetError:
        raise
    except UsageError as error:
        raise DatasetError(str(path), row.line, error.message, hint=error.hint) from error


def _as_written(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns as fields of a case: `expect.label` reaches into `expect`; empty cells say nothing."""
    case: dict[str, Any] = {}
    for name, value in columns.items():
        if value is None or value == "":
            continue
        _put(case, name, value)
    return case


def _mapped(columns: Mapping[str, Any], model: DatasetModel) -> dict[str, Any]:
    case: dict[str, Any] = {}
    for name, template in model.fields.items():
        _check_constant(name, template, columns)
        value = render_all(template, {"row": columns})
        translations = model.values.get(name)
        if translations is not None:
            if str(value) not in translations:
                raise UsageError(f"{name} is {str(value)[:40]!r}, for which `values` has nothing.")
            value = translations[str(value)]
        if value is not None and value != "":
            _put(case, name, value)
    return case


def _check_constant(name: str, template: str, columns: Mapping[str, Any]) -> None:
    """Refuse words that are a column's name: every row would get the name, and no row what is in it."""
    if template in columns:
        raise UsageError(
            f"{name} would be the word {template!r} for every row, and there is a column of that name.",
            hint=f'For the column write "{{{{ row.{template} }}}}"; '
            f"for the word itself write '{{{{ \"{template}\" }}}}'.",
        )


def _put(case: dict[str, Any], name: str, value: Any) -> None:
    head, _, rest = name.partition(".")
    if rest and head in _NESTED:
        case.setdefault(head, {})[rest] = value
    elif name in _SEPARATED and isinstance(value, str):
        case[name] = [item.strip() for item in value.split(";") if item.strip()]
    elif name in _TEXTS and isinstance(value, int | float):
        case[name] = str(value)
    else:
        case[name] = value


def _explain(error: pydantic.ValidationError) -> tuple[str, str | None]:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        hint = f"{did_you_mean(place, _FIELDS)} Or map columns to fields of a case with `fields`."
        return f"column {place!r} is no field of a case.", hint
    cause = first.get("ctx", {}).get("error")
    message = getattr(cause, "message", None) or first["msg"]
    return f"{place + ': ' if place else ''}{message}", getattr(cause, "hint", None)


def _declared_files(folder: Path, *, config: str, split: str) -> list[Path] | None:
    """The files that the README's front matter names; None when it names none."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    document, problems = compose(text[4 : text.index("\n---", 4)], file=str(readme), digest="")
    if document is None or problems:
        raise FilesError(problems)
    front = document.value if isinstance(document.value, dict) else {}
    configs = [c for c in front.get("configs") or [] if isinstance(c, dict)]
    if not configs:
        return None
    names = [str(c.get("config_name", "default")) for c in configs]
    chosen = config or (names[0] if len(names) == 1 or "default" not in names else "default")
    if chosen not in names:
        raise DatasetError(str(readme), 0, f"no config {chosen!r}.", hint=did_you_mean(chosen, names))
    return _matching(folder, configs[names.index(chosen)].get("data_files"), split)


def _matching(folder: Path, data_files: Any, split: str) -> list[Path]:
    """The files of the patterns of one config; `data_files` is a text, a list, or a list with splits."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    patterns: list[str] = []
    for entry in entries:
        if isinstance(entry, dict):
            if not split or entry.get("split") == split:
                path = entry.get("path")
                patterns += [path] if isinstance(path, str) else list(path or [])
        elif isinstance(entry, str):
            patterns.append(entry)
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    root = folder.resolve()
    return sorted(path for path in found if path.resolve().is_relative_to(root))


def _found_files(folder: Path, split: str) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and _is_rows(path))
    if not split:
        return found
    return [p for p in found if p.name.startswith(split) or split in p.relative_to(folder).parts[:-1]]


def _is_rows(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in _SUFFIXES and not path.name.startswith(".")
