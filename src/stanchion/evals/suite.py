"""A suite: a versioned, content-hashed set of cases, what is put before the model, and what is promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stanchion.core.codec import Digest, digest, digest_stream
from stanchion.core.components import ComponentSet
from stanchion.core.errors import FilesError, Problem, StanchionError, UsageError
from stanchion.core.interaction import Role, Text, ToolResult
from stanchion.core.origin import Origin
from stanchion.evals.case import Case
from stanchion.evals.case_maker import CaseMaker
from stanchion.evals.dataset import dataset_cases, dataset_files
from stanchion.evals.near_duplicates import NearPair, near_duplicates
from stanchion.evals.suite_file import CasesFile, DatasetModel, SuiteFile
from stanchion.files.document import YamlDocument
from stanchion.files.references import CycleError, Trail, project_root, resolve_inside
from stanchion.files.schema import Loaded, attempt_file, load_file

__all__ = ["Case", "Census", "Suite", "load_suite"]

COUNTED_BYTES = 4 << 20  # datasets beyond this are not walked before the run
COMPARED_CASES = 5_000  # suites beyond this are not searched for near-duplicates


@dataclass(frozen=True, slots=True)
class Census:
    """What one walk over the cases found.

    `duplicates` are cases left out because another one is the same: (place left out, its id). `near` are
    pairs that say nearly the same and share no cluster; None when the suite is too large to compare.
    """

    count: int
    categories: Mapping[str, int]
    duplicates: tuple[tuple[str, str], ...]
    near: tuple[NearPair, ...] | None

    def notes(self) -> tuple[str, ...]:
        """What a run's header should say about it; ids and places only."""
        notes = []
        if self.duplicates:
            place, name = self.duplicates[0]
            notes.append(
                f"{len(self.duplicates)} cases left out: they are the same as another case, such as "
                f"{place} ({name})"
            )
        if self.near:
            pair = self.near[0]
            notes.append(
                f"{len(self.near)} pairs of cases say nearly the same and share no cluster, such as "
                f"{pair.first} and {pair.second} ({pair.similarity:.2f})"
            )
        return tuple(notes)


@dataclass(frozen=True, slots=True)
class _Part:
    """The cases of one file: the suite's own, or an included one's."""

    loaded: Loaded[Any]
    maker: CaseMaker
    files: tuple[tuple[DatasetModel, tuple[Path, ...]], ...]


@dataclass(frozen=True)
class Suite:
    """A suite that was loaded and checked; cases stream from it, the same each time."""

    file: SuiteFile
    path: Path
    digest: Digest
    data_bytes: int
    _parts: tuple[_Part, ...] = field(repr=False)

    @property
    def id(self) -> str:
        """The suite's name."""
        return self.file.suite

    @property
    def title(self) -> str:
        """What people call it."""
        return self.file.title or self.file.suite

    @property
    def components(self) -> ComponentSet:
        """What the suite puts before the target: the prompt, the tools and the documents as an index."""
        file = self.file
        return ComponentSet(
            suite=self.digest,
            prompt=digest(file.system) if file.system else "",
            tools=digest([tool.model_dump() for tool in file.tools]) if file.tools else "",
            index=digest([doc.model_dump() for doc in file.documents]) if file.documents else "",
        )

    @property
    def planned(self) -> int | None:
        """How many cases there are; None when the datasets are too large to walk beforehand."""
        return self.census.count if self.data_bytes <= COUNTED_BYTES else None

    @property
    def expects_refusal(self) -> bool:
        """Whether a case may say `expect.refusal`; rows of datasets are not read for it."""
        files: list[CasesFile] = [part.loaded.value for part in self._parts]
        expected = [e.refusal for f in files for e in (f.defaults.expect, *(c.expect for c in f.cases))]
        return any(file.datasets for file in files) or any(refusal is not None for refusal in expected)

    def cases(self) -> Iterator[Case]:
        """Every case of the chosen split in the order of the files, streaming; the same ones may come twice.

        Raises:
            FilesError: for a case of a file that cannot be made.
            DatasetError: for a row that cannot.
        """
        used = self.file.splits.use if self.file.splits else ""
        for part in self._parts:
            for case in _part_cases(part, self.file.seed):
                if not used or case.split == used:
                    yield case

    @cached_property
    def census(self) -> Census:
        """One walk over all cases: how many, which are the same, which nearly so."""
        seen: set[str] = set()
        categories: Counter[str] = Counter()
        duplicates: list[tuple[str, str]] = []
        texts: list[tuple[str, str, str]] = []
        for case in self.cases():
            if case.key in seen:
                duplicates.append((case.where, case.id))
                continue
            seen.add(case.key)
            categories[case.category] += 1
            if len(texts) <= COMPARED_CASES:
                texts.append((case.id, case.cluster, _own_words(case)))
        near = None if len(seen) > COMPARED_CASES else _outside_clusters(texts)
        return Census(len(seen), dict(categories), tuple(duplicates), near)


def load_suite(path: Path, *, env: Mapping[str, str] | None = None) -> Suite:
    """Read a suite, the files it includes and the places of its datasets; small ones are walked at once.

    Args:
        path: the suite file.
        env: what `${env:NAME}` reads; None: the file may not read the environment.

    Raises:
        FilesError: with every problem of every file.
        DatasetError: when a dataset is missing.
    """
    loaded = load_file(path, SuiteFile, env=env)
    problems: list[Problem] = []
    parts = list(_parts(loaded, loaded.value, Trail().enter(path), problems, env=env))
    for part in parts:
        problems.extend(_case_problems(part))
    problems.extend(_identity_problems(parts))
    if problems:
        raise FilesError(problems)
    files = sorted({file for part in parts for _, found in part.files for file in found})
    included = [part.loaded.digest for part in parts[1:]]
    identity = {"suite": loaded.digest, "included": included, "data": [_file_digest(file) for file in files]}
    return Suite(
        file=loaded.value,
        path=path,
        digest=digest(identity),
        data_bytes=sum(file.stat().st_size for file in files),
        _parts=tuple(parts),
    )


def _parts(
    loaded: Loaded[Any],
    suite: SuiteFile,
    trail: Trail,
    problems: list[Problem],
    *,
    env: Mapping[str, str] | None,
) -> Iterator[_Part]:
    """The file and, depth first, everything it includes."""
    file: CasesFile = loaded.value
    values = {**suite.vars, **file.vars}
    document, root = loaded.document, project_root(loaded.path)
    try:
        maker = CaseMaker(suite, values=values, defaults=file.defaults)
    except UsageError as error:
        problems.append(document.problem((), rule="template", message=error.message, hint=error.hint))
        return
    found = []
    for index, dataset in enumerate(file.datasets):
        try:
            place = resolve_inside(dataset.path, folder=loaded.path.parent, root=root)
            found.append((dataset, tuple(dataset_files(place, config=dataset.config, split=dataset.split))))
        except FilesError as error:
            problems.extend(error.problems)
        except UsageError as error:
            here = ("datasets", index, "path")
            problems.append(document.problem(here, rule="dataset", message=error.message, hint=error.hint))
    yield _Part(loaded, maker, tuple(found))
    for index, name in enumerate(file.include):
        at = ("include", index)
        try:
            place = resolve_inside(name, folder=loaded.path.parent, root=root)
            deeper = trail.enter(place)
        except (CycleError, UsageError) as error:
            problems.append(document.problem(at, rule="include", message=error.message, hint=error.hint))
            continue
        below, wrong = attempt_file(place, CasesFile, env=env)
        problems.extend(wrong)
        if below is not None:
            yield from _parts(below, suite, deeper, problems, env=env)


def _part_cases(part: _Part, seed: int) -> Iterator[Case]:
    document = part.loaded.document
    for index, model in enumerate(part.loaded.value.cases):
        line, _ = document.position(("cases", index))
        yield part.maker.make(model, where=f"{part.loaded.path.name}:{line}")
    for dataset, files in part.files:
        maker = part.maker.with_defaults(dataset.defaults)
        yield from dataset_cases(dataset, list(files), maker, seed=seed)


def _case_problems(part: _Part) -> Iterator[Problem]:
    """What is wrong with the cases of the file itself; those of datasets are read when they stream."""
    document: YamlDocument = part.loaded.document
    for index, model in enumerate(part.loaded.value.cases):
        try:
            part.maker.make(model, where="")
        except StanchionError as error:
            yield document.problem(("cases", index), rule="case", message=error.message, hint=error.hint)


def _identity_problems(parts: list[_Part]) -> Iterator[Problem]:
    """Two written cases with one id, and twins that name nothing."""
    names: dict[str, str] = {}
    for part in parts:
        for index, model in enumerate(part.loaded.value.cases):
            line, _ = part.loaded.document.position(("cases", index))
            where = f"{part.loaded.path.name}:{line}"
            if model.id and model.id in names:
                yield part.loaded.document.problem(
                    ("cases", index, "id"),
                    rule="case-id",
                    message=f"case id {model.id!r} is taken, at {names[model.id]}.",
                    hint="Ids are unique in a suite; leave it out to get one from the content.",
                )
            if model.id:
                names.setdefault(model.id, where)


def _file_digest(path: Path) -> Digest:
    with path.open("rb") as stream:
        return digest_stream(stream)


def _own_words(case: Case) -> str:
    """The words of the turns, without the documents and the system prompt that cases share."""
    return "\n".join(
        part.text
        for message in case.messages
        if message.role is not Role.SYSTEM
        for part in message.parts
        if isinstance(part, Text | ToolResult) and part.origin is not Origin.RETRIEVED
    )


def _outside_clusters(texts: list[tuple[str, str, str]]) -> tuple[NearPair, ...]:
    cluster_of = {name: cluster for name, cluster, _ in texts}
    pairs = near_duplicates((name, text) for name, _, text in texts)
    return tuple(
        pair
        for pair in pairs
        if not cluster_of[pair.first] or cluster_of[pair.first] != cluster_of[pair.second]
    )
