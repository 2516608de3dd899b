"""Pattern catalogues: data files that say what to look for, each pattern with its own tests.

A pattern must compile in Hyperscan, which finds the texts that hold it, and in RE2, which finds the place.
Both are linear in the length of the text, so no pattern of ours or of a user can hang.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import pydantic

from stanchion.core.errors import FilesError, Problem, did_you_mean
from stanchion.core.finding import Severity
from stanchion.core.taxonomy import taxonomy
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import faults
from stanchion.detectors.patterns import (
    DEFAULT_VIEWS,
    FLAGS,
    FORMAT,
    VIEW_FAMILIES,
    Catalogue,
    ContextRule,
    Flag,
    Pattern,
    ViewFamily,
)
from stanchion.files.document import YamlDocument
from stanchion.files.schema import FileModel, Loaded, attempt_file, load_file

DETECTORS = ("secrets", "pii", "injection", "leakage", "refusal", "content", "custom")

Score = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Joined = str | list[str]


class ContextModel(FileModel):
    """`context:` of a pattern."""

    words: Annotated[list[str], pydantic.Field(min_length=1)]
    window: Annotated[int, pydantic.Field(ge=1, le=1000)] = 60
    raise_by: Score = pydantic.Field(alias="raise", default=0.0)
    required: bool = False


class PatternModel(FileModel):
    """One entry of `patterns:`."""

    id: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9][a-z0-9_]*)+$")]
    pattern: Annotated[str, pydantic.Field(min_length=1)]
    category: str
    severity: Severity | None = None
    score: Score
    group: Annotated[int, pydantic.Field(ge=0, le=99)] = 0
    flags: tuple[Flag, ...] = ()
    views: Annotated[tuple[ViewFamily, ...], pydantic.Field(min_length=1)] | None = None
    validator: str | None = None
    context: ContextModel | None = None
    reason: str = ""
    examples: tuple[Joined, ...] = ()
    counter_examples: tuple[Joined, ...] = ()


class CatalogueModel(FileModel):
    """A whole catalogue file; `views` are those of patterns that name none."""

    catalogue: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
    version: Annotated[int, pydantic.Field(ge=1)]
    source: str = ""
    views: Annotated[tuple[ViewFamily, ...], pydantic.Field(min_length=1)] = DEFAULT_VIEWS
    patterns: Annotated[list[PatternModel], pydantic.Field(min_length=1)]


def load_catalogue(
    path: Path, *, detectors: Sequence[str] = DETECTORS, cache_dir: Path | None = None
) -> Catalogue:
    """The catalogue of one file, every pattern checked by itself; see `load_catalogues`.

    Raises:
        FilesError: with every problem of the file.
    """
    return load_catalogues([path], detectors=detectors, cache_dir=cache_dir)[0]


def load_catalogues(
    paths: Sequence[Path], *, detectors: Sequence[str] = DETECTORS, cache_dir: Path | None = None
) -> tuple[Catalogue, ...]:
    """The catalogues of several files; an id may be given once in all of them.

    `detectors` are the prefixes that ids may have; a user's own files are `("custom",)`. Checking takes some
    10 ms for each pattern; with `cache_dir` a file that was found good is not checked again.

    Raises:
        FilesError: with every problem of every file: structure, expressions that do not compile in both
            engines or match nearly everything, unknown categories, validators and views, ids given twice.
    """
    problems: list[Problem] = []
    catalogues: list[Catalogue] = []
    seen: dict[str, str] = {}
    cache = DiskCache(cache_dir)
    for path in paths:
        name = _cache_name(path, detectors) if cache_dir is not None else ""
        kept = _kept(cache, name) if name else None
        if kept is not None and seen.keys().isdisjoint(pattern.id for pattern in kept.patterns):
            seen.update((pattern.id, str(path)) for pattern in kept.patterns)
            catalogues.append(kept)
            continue
        loaded, found = attempt_file(path, CatalogueModel)
        problems.extend(found)
        if loaded is not None:
            found = tuple(check_catalogue(loaded, detectors=detectors, seen=seen))
            problems.extend(found)
            catalogues.append(_catalogue(loaded.value))
            if name and not found:
                cache.write(name, msgspec.msgpack.encode(catalogues[-1]))
    if problems:
        raise FilesError(problems)
    return tuple(catalogues)


def load_packaged(path: Path) -> Catalogue:
    """A catalogue of the package, whose patterns the tests have checked one by one: read, not checked again.

    Raises:
        FilesError: with every problem of its structure.
    """
    return _catalogue(load_file(path, CatalogueModel).value)


def _cache_name(path: Path, detectors: Sequence[str]) -> str:
    """Names what a check depends on; empty when the file cannot be read, which the check will tell."""
    from stanchion.detectors.validators import VALIDATORS

    try:
        data = path.read_bytes()
    except OSError:
        return ""
    parts = [FORMAT, data, sorted(detectors), sorted(VALIDATORS), sorted(taxonomy())]
    return f"checked-{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]}.msgpack"


def _kept(cache: DiskCache, name: str) -> Catalogue | None:
    stored = cache.read(name)
    try:
        return None if stored is None else msgspec.msgpack.decode(stored, type=Catalogue)
    except msgspec.DecodeError:
        return None


def check_catalogue(
    loaded: Loaded[CatalogueModel],
    *,
    detectors: Sequence[str] = DETECTORS,
    seen: dict[str, str] | None = None,
) -> list[Problem]:
    """What is wrong with the patterns of a file that is well formed; `seen` carries ids from file to file."""
    places = {} if seen is None else seen
    problems: list[Problem] = []
    for index, model in enumerate(loaded.value.patterns):
        at = ("patterns", index)
        document = loaded.document
        problems.extend(_id_problems(document, at, model, detectors=detectors, places=places))
        problems.extend(_name_problems(document, at, model))
        problems.extend(
            document.problem(
                (*at, fault.field),
                rule=f"pattern.{fault.rule}",
                message=f"pattern {model.id!r}: {fault.message}",
                hint=fault.hint,
            )
            for fault in faults(model.pattern, flags=model.flags, group=model.group)
        )
    return problems


def _id_problems(
    document: YamlDocument,
    at: tuple[str, int],
    model: PatternModel,
    *,
    detectors: Sequence[str],
    places: dict[str, str],
) -> list[Problem]:
    problems = []
    prefix = model.id.partition(".")[0]
    if prefix not in detectors:
        problems.append(
            document.problem((*at, "id"), rule="pattern.detector",
                             message=f"pattern {model.id!r}: no detector reports the prefix {prefix!r}.",
                             hint=f"Begin the id with {' or '.join(f'{d}.' for d in detectors)}")
        )  # fmt: skip
    if model.id in places:
        problems.append(
            document.problem((*at, "id"), rule="pattern.duplicate",
                             message=f"pattern id {model.id!r} is already given at {places[model.id]}.",
                             hint="Give each pattern its own id.")
        )  # fmt: skip
    else:
        places[model.id] = f"{document.file}:{document.position((*at, 'id'))[0]}"
    return problems


def _name_problems(document: YamlDocument, at: tuple[str, int], model: PatternModel) -> list[Problem]:
    problems = []
    known = taxonomy()
    if model.category not in known:
        problems.append(
            document.problem((*at, "category"), rule="pattern.category",
                             message=f"pattern {model.id!r}: unknown category {model.category!r}.",
                             hint=did_you_mean(model.category, known))
        )  # fmt: skip
    if model.validator is not None:
        from stanchion.detectors.validators import VALIDATORS

        if model.validator not in VALIDATORS:
            problems.append(
                document.problem((*at, "validator"), rule="pattern.validator",
                                 message=f"pattern {model.id!r}: unknown validator {model.validator!r}.",
                                 hint=did_you_mean(model.validator, VALIDATORS))
            )  # fmt: skip
    return problems


def _catalogue(model: CatalogueModel) -> Catalogue:
    return Catalogue(
        id=model.catalogue,
        version=model.version,
        source=model.source,
        patterns=tuple(_pattern(entry, entry.views or model.views) for entry in model.patterns),
    )


def _pattern(model: PatternModel, views: Sequence[ViewFamily]) -> Pattern:
    context = None
    if model.context is not None:
        given = model.context
        context = ContextRule(
            words=tuple(given.words), window=given.window, raise_by=given.raise_by, required=given.required
        )
    category = taxonomy().get(model.category)
    return Pattern(
        id=model.id,
        pattern=model.pattern,
        category=model.category,
        severity=model.severity or (category.severity if category else Severity.MEDIUM),
        score=model.score,
        group=model.group,
        flags=tuple(flag for flag in FLAGS if flag in model.flags),
        views=tuple(family for family in VIEW_FAMILIES if family in views),
        validator=model.validator or "",
        context=context,
        reason=model.reason,
        examples=tuple(map(_joined, model.examples)),
        counter_examples=tuple(map(_joined, model.counter_examples)),
    )


def _joined(example: Joined) -> str:
    return example if isinstance(example, str) else "".join(example)
