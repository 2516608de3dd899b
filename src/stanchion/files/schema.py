"""Files that people write, as checked models: every problem of every file at once, each with its place.

A model is a frozen pydantic class with no unknown keys. Values are strict: `5` is no text, `"5"` is no
number, and a text stands for an enum value, a date or a path where the model says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pydantic

from stanchion.core.codec import Digest, digest, digest_bytes
from stanchion.core.errors import FilesError, Problem, StanchionError
from stanchion.files.document import MAX_BYTES, YamlDocument, attempt_document, compose
from stanchion.files.explain import explain
from stanchion.files.references import Resolution, project_root, resolve_references


class FileModel(pydantic.BaseModel):
    """The base of every model of a file: frozen, strict, unknown keys are errors."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class FieldError(ValueError):
    """What a validator of a FileModel raises: the message, and what to do about it.

    `at` is the place below the validated one, and `others` are further problems, each with its own place.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        at: tuple[str | int, ...] = (),
        others: tuple[FieldError, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.at = at
        self.others = others

    @classmethod
    def of(cls, found: Sequence[FieldError]) -> FieldError:
        """One error for several, which the file's reader tells apart again."""
        first = found[0]
        return cls(first.message, hint=first.hint, at=first.at, others=tuple(found[1:]))


T = TypeVar("T", bound=pydantic.BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A file that was read and fits its model.

    `digest` covers the file's bytes and those of every file it brings in; never values of the environment.
    """

    value: T
    path: Path
    document: YamlDocument
    digest: Digest


def load_file(
    path: Path, model: type[T], *, env: Mapping[str, str] | None = None, root: Path | None = None
) -> Loaded[T]:
    """Read one YAML or JSON file into its model.

    `env` is what `${env:NAME}` reads (`None`: not allowed); `root` is the folder that `${file:...}` may not
    leave (default: `references.project_root(path)`).

    Raises:
        FilesError: with every problem of the file.
    """
    loaded, problems = attempt_file(path, model, env=env, root=root)
    if loaded is None:
        raise FilesError(problems)
    return loaded


def load_files(
    requests: Iterable[tuple[Path, type[T]]],
    *,
    env: Mapping[str, str] | None = None,
    root: Path | None = None,
) -> tuple[Loaded[T], ...]:
    """Read many files, and raise one FilesError with the problems of all of them."""
    attempts = [attempt_file(path, model, env=env, root=root) for path, model in requests]
    problems = [problem for _, found in attempts for problem in found]
    if problems:
        raise FilesError(problems)
    return tuple(loaded for loaded, _ in attempts if loaded is not None)


def attempt_file(
    path: Path,
    model: type[T],
    *,
    env: Mapping[str, str] | None = None,
    root: Path | None = None,
    max_bytes: int = MAX_BYTES,
) -> tuple[Loaded[T] | None, tuple[Problem, ...]]:
    """The loaded file, or `None` and all its problems; for callers that go on after a problem."""
    document, problems = attempt_document(path, max_bytes=max_bytes)
    if document is None:
        return None, problems
    return _check(document, list(problems), path, model, env=env, root=root or project_root(path))


def load_text(
    text: str, model: type[T], *, file: str, env: Mapping[str, str] | None = None, root: Path | None = None
) -> Loaded[T]:
    """The same for a text that is already in memory, such as a packaged file; `file` names it in messages.

    Raises:
        FilesError: with every problem of the text.
    """
    document, problems = compose(text, file=file, digest=digest_bytes(text.encode()))
    loaded: Loaded[T] | None = None
    if document is not None:
        loaded, problems = _check(
            document, list(problems), Path(file), model, env=env, root=root or Path(file).parent
        )
    if loaded is None:
        raise FilesError(problems)
    return loaded


def _check(
    document: YamlDocument,
    problems: list[Problem],
    path: Path,
    model: type[T],
    *,
    env: Mapping[str, str] | None,
    root: Path,
) -> tuple[Loaded[T] | None, tuple[Problem, ...]]:
    resolution = resolve_references(document, path=path, root=root, env=env)
    problems.extend(resolution.problems)
    value: T | None = None
    try:
        value = model.model_validate_json(json.dumps(resolution.value), strict=True)
    except pydantic.ValidationError as error:
        problems.extend(explain(error, model, document, resolution))
    except StanchionError as error:
        problems.append(document.problem((), rule="value", message=error.message, hint=error.hint))
    if value is None or problems:
        return None, tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
    return Loaded(value, path, document, _digest(document, resolution)), ()


def _digest(document: YamlDocument, resolution: Resolution) -> Digest:
    if not resolution.included:
        return document.digest
    return digest({"file": document.digest, "included": resolution.included})
