"""Rubrics: what a judge is asked, as a file that people write and review."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stanchion.core.codec import Digest, digest
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.resources import data_path, read_data_text
from stanchion.core.taxonomy import category
from stanchion.files.schema import FieldError, FileModel, load_file, load_text

MOST_LEVELS, MOST_CRITERIA, MOST_EXAMPLES = 11, 40, 40
Reads = Literal["question", "documents", "system_prompt"]
_Words = Annotated[str, Field(min_length=1, max_length=4_000)]


def _known(name: str) -> str:
    try:
        category(name)
    except UnknownNameError as error:
        raise FieldError(error.message, hint=error.hint) from error
    return name


class Criterion(FileModel):
    """One question about the text, and the category of a finding when its level is above the lowest."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    category: Annotated[str, AfterValidator(_known)]
    question: _Words


class Example(FileModel):
    """A text with its right levels; criteria that are left out have level 0. Controls test the judge."""

    text: _Words
    levels: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    control: bool = False


class Rubric(FileModel):
    """What is judged, by which criteria, on which scale: `scale[i]` says what level i means."""

    rubric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,49}$")]
    version: Annotated[int, Field(ge=1)]
    judges: _Words
    reads: tuple[Reads, ...] = ()
    scale: Annotated[tuple[_Words, ...], Field(min_length=2, max_length=MOST_LEVELS)]
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1, max_length=MOST_CRITERIA)]
    examples: Annotated[tuple[Example, ...], Field(max_length=MOST_EXAMPLES)] = ()

    @model_validator(mode="after")
    def _names_and_levels_fit(self) -> Self:
        ids = [one.id for one in self.criteria]
        if len(set(ids)) < len(ids):
            raise FieldError("two criteria have the same id")
        for number, example in enumerate(self.examples, start=1):
            for name, level in example.levels.items():
                if name not in ids:
                    raise FieldError(f"example {number} speaks of a criterion {name!r} that does not exist")
                if level >= len(self.scale):
                    raise FieldError(f"example {number} has level {level}, the scale ends at {self.highest}")
            if example.control and 2 * max(example.levels.values(), default=0) <= self.highest:
                raise FieldError(
                    f"example {number} is a control, but no level of it is in the upper half of the scale",
                    hint="A control shows that the judge still finds what is wrong.",
                )
        return self

    @property
    def highest(self) -> int:
        """The highest level."""
        return len(self.scale) - 1

    @property
    def digest(self) -> Digest:
        """The identity of what it says."""
        return digest(self.model_dump(mode="json"))

    @property
    def shown(self) -> tuple[Example, ...]:
        """The examples that the judge sees as examples."""
        return tuple(one for one in self.examples if not one.control)

    @property
    def controls(self) -> tuple[Example, ...]:
        """The examples that are judged beside the material, to see whether the judge still judges."""
        return tuple(one for one in self.examples if one.control)


def packaged_rubrics() -> tuple[str, ...]:
    """The names of the rubrics that come with the package."""
    return tuple(
        sorted(
            entry.name.removesuffix(".yaml")
            for entry in data_path("rubrics").iterdir()
            if entry.name.endswith(".yaml")
        )
    )


@lru_cache(maxsize=16)
def packaged_rubric(name: str) -> Rubric:
    """One of them.

    Raises:
        UnknownNameError: when there is none of this name.
    """
    if name not in packaged_rubrics():
        raise UnknownNameError("rubric", name, packaged_rubrics())
    file = f"{name}.yaml"
    return load_text(read_data_text("rubrics", file), Rubric, file=f"stanchion:rubrics/{file}").value


def read_rubric(name: str, *, folder: Path | None = None) -> Rubric:
    """A rubric by packaged name, or by file (`.yaml`), relative to `folder`.

    Raises:
        UnknownNameError: for an unknown packaged name.
        FilesError: with every problem of the file.
        UsageError: for a file outside the project of `folder`.
    """
    if not name.endswith((".yaml", ".yml")):
        return packaged_rubric(name)
    if folder is None:
        return load_file(Path(name), Rubric).value
    from stanchion.files.references import project_root, resolve_inside

    try:
        path = resolve_inside(name, folder=folder, root=project_root(folder / "policy.yaml"))
    except UsageError as error:
        raise UsageError(f"rubric {name!r}: {error.message}", hint=error.hint) from error
    return load_file(path, Rubric).value
