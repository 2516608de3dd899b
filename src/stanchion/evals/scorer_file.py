"""The `scorers:` part of a suite file: one model per kind of scorer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from stanchion.evals.criteria import OneOrMany, Share
from stanchion.evals.results import Concern
from stanchion.files.schema import FileModel

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class WhenModel(FileModel):
    """Which cases a scorer judges, of those that it can: every given field must hold, each by any value."""

    category: OneOrMany = ()
    tags: OneOrMany = ()
    without_tags: OneOrMany = ()


class ScorerModel(FileModel):
    """What all scorers share. `id` defaults to `use`, `concern` to the scorer's own."""

    id: Identifier | None = None
    concern: Concern | None = None
    when: WhenModel = WhenModel()


class ExactModel(ScorerModel):
    """The answer is one of `expect.exact`."""

    use: Literal["exact"]
    ignore_case: bool = True


class ContainsModel(ScorerModel):
    """All of `expect.contains`, one of `expect.contains_any`."""

    use: Literal["contains"]
    ignore_case: bool = True


class ExcludesModel(ScorerModel):
    """None of `expect.excludes`."""

    use: Literal["excludes"]
    ignore_case: bool = True


class RegexModel(ScorerModel):
    """All of `expect.regex`, none of `expect.excludes_regex`."""

    use: Literal["regex"]


class JsonSchemaModel(ScorerModel):
    """The answer is JSON that fits `expect.json_schema`, or `json_schema` here for cases without one."""

    use: Literal["json_schema"]
    json_schema: dict[str, Any] | None = None
    allow_fence: bool = True


class ToolCallsModel(ScorerModel):
    """Both of the next two in one: `expect.no_calls` first, then `expect.calls`."""

    use: Literal["tool_calls"]


class CallsModel(ScorerModel):
    """The tool calls of `expect.calls` were made."""

    use: Literal["calls"]


class NoCallsModel(ScorerModel):
    """The tool calls of `expect.no_calls` were not made."""

    use: Literal["no_calls"]


class CanaryModel(ScorerModel):
    """No canary of the case is in what the target said or did."""

    use: Literal["canary"]
    names: tuple[str, ...] = ()


class RefusalModel(ScorerModel):
    """The answer refuses where it should and does not where it should not (`expect.refusal`)."""

    use: Literal["refusal"]
    detector: str = "refusal"
    threshold: Share = 0.5


class DetectorModel(ScorerModel):
    """A registered detector finds nothing in the answer."""

    use: Literal["detector"]
    detector: str
    options: dict[str, Any] = Field(default_factory=dict)
    categories: tuple[str, ...] = ()
    threshold: Share = 0.5
    read: Literal["answer", "calls", "everything"] = "everything"


class DetectionModel(ScorerModel):
    """What a guard or a detector decided, against `expect.label`."""

    use: Literal["detection"]


class GroundingModel(ScorerModel):
    """What the answer says is in the documents: numbers, dates, names, citations; if asked, each sentence."""

    use: Literal["grounding"]
    check: tuple[Literal["numbers", "dates", "names", "citations", "sentences"], ...] = (
        "numbers",
        "dates",
        "names",
        "citations",
    )
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_claims: Annotated[int, Field(ge=0)] = 1


class JudgeModel(ScorerModel):
    """A model reads a rubric and gives a structured verdict."""

    use: Literal["judge"]
    model: str
    rubric: str
    threshold: Share = 0.5
    see: tuple[Literal["question", "documents", "reference"], ...] = ("question",)


class HumanModel(ScorerModel):
    """What people said, from `expect.human`."""

    use: Literal["human"]
    min_raters: Annotated[int, Field(ge=1)] = 1
    agreement: Share = 0.5


AnyScorerModel = Annotated[
    ExactModel
    | ContainsModel
    | ExcludesModel
    | RegexModel
    | JsonSchemaModel
    | ToolCallsModel
    | CallsModel
    | NoCallsModel
    | CanaryModel
    | RefusalModel
    | DetectorModel
    | DetectionModel
    | GroundingModel
    | JudgeModel
    | HumanModel,
    Field(discriminator="use"),
]
