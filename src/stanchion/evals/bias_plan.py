"""What a bias comparison asks: axes of groups, templates with a slot for the person, and limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from stanchion.core.codec import Digest, digest
from stanchion.core.errors import UnknownNameError
from stanchion.core.resources import read_data_text
from stanchion.files.schema import FileModel, load_file

Outcome = Literal["decision", "rating", "refusal", "length"]
SLOT = "{person}"
Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]


class AxisModel(FileModel):
    """Groups by name, each with the words that stand for a person of it."""

    groups: Annotated[dict[str, Texts], Field(min_length=2, max_length=50)]


class TemplateModel(FileModel):
    """A request with the slot `{person}`, and what is read from the answer."""

    id: str
    text: Annotated[str, Field(max_length=10_000)]
    outcome: Outcome = "decision"
    axes: tuple[str, ...] = ()

    @field_validator("text")
    @classmethod
    def _has_a_slot(cls, text: str) -> str:
        if SLOT not in text:
            raise ValueError("the text has no slot {person}")
        return text


class BiasFile(FileModel):
    """A file of one's own: what is given replaces the packaged part of the same name.

    `limit` is how much a group may differ from the others (a share of decisions or refusals; for ratings a
    share of the scale, for lengths relative); `max_unjudged` the share of answers without an outcome that is
    tolerated; `repeats` how many persons of each group every template is asked about.
    """

    bias: str = "packaged"
    system: str = ""
    axes: dict[str, AxisModel] = Field(default_factory=dict)
    templates: tuple[TemplateModel, ...] = ()
    only_axes: tuple[str, ...] = ()
    repeats: Annotated[int, Field(ge=1, le=1000)] = 4
    limit: Annotated[float, Field(gt=0, le=1)] = 0.1
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    max_unjudged: Annotated[float, Field(ge=0, le=1)] = 0.1
    outcomes: tuple[Outcome, ...] = ()


class Twin(NamedTuple):
    """One request of a cell: the axis, what makes the cell, the group, and the words that are sent."""

    axis: str
    template: str
    outcome: Outcome
    cell: str
    group: str
    text: str


class BiasPlan(NamedTuple):
    """Everything that is asked, and how it is judged."""

    file: BiasFile
    axes: dict[str, AxisModel]
    templates: tuple[TemplateModel, ...]
    digest: Digest

    def twins(self) -> Iterator[Twin]:
        """Every request; the twins of a cell differ in nothing but the person."""
        for name, axis in self.axes.items():
            for template in self.templates:
                if template.axes and name not in template.axes:
                    continue
                for repeat in range(self.file.repeats):
                    cell = f"{name}/{template.id}/{repeat}"
                    for group, persons in axis.groups.items():
                        person = persons[repeat % len(persons)]
                        text = template.text.replace(SLOT, person)
                        text = text[:1].upper() + text[1:]
                        yield Twin(name, template.id, template.outcome, cell, group, text)

    def with_options(
        self, *, axes: tuple[str, ...] = (), repeats: int | None = None, limit: float | None = None
    ) -> BiasPlan:
        """The plan with other options.

        Raises:
            UnknownNameError: for an axis that the plan does not have.
        """
        for name in axes:
            if name not in self.axes:
                raise UnknownNameError("axis", name, self.axes)
        given = {"only_axes": axes or None, "repeats": repeats, "limit": limit}
        changed = {name: value for name, value in given.items() if value is not None}
        return _plan(self.file.model_copy(update=changed)) if changed else self


def packaged_plan() -> BiasPlan:
    """The packaged axes and templates with the defaults."""
    return _plan(BiasFile())


def load_plan(path: Path) -> BiasPlan:
    """A plan from a file.

    Raises:
        FilesError: with file and line of everything that is wrong.
    """
    return _plan(load_file(path, BiasFile).value)


def _plan(file: BiasFile) -> BiasPlan:
    import yaml

    packaged = yaml.safe_load(read_data_text("bias.yaml"))
    axes = file.axes or {
        name: AxisModel.model_validate_json(_json(a)) for name, a in packaged["axes"].items()
    }
    templates = file.templates or tuple(
        TemplateModel.model_validate_json(_json(t)) for t in packaged["templates"]
    )
    chosen = {name: axis for name, axis in axes.items() if not file.only_axes or name in file.only_axes}
    kept = tuple(t for t in templates if not file.outcomes or t.outcome in file.outcomes)
    content = [file.model_dump(mode="json"), {n: a.model_dump(mode="json") for n, a in chosen.items()}]
    return BiasPlan(file, chosen, kept, digest([*content, [t.model_dump(mode="json") for t in kept]]))


def _json(value: object) -> str:
    import json

    return json.dumps(value)
