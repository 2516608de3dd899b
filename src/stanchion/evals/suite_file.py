"""The shape of a suite file (`suite.yaml`), as people write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from stanchion.evals.criteria import CriterionModel, Duration, OneOrMany, Share
from stanchion.evals.scorer_file import AnyScorerModel, Identifier
from stanchion.evals.target_file import AnyTargetModel
from stanchion.files.schema import FieldError, FileModel

DEFAULT_CANARY = "CANARY-############"
_LEAST_RANDOM = 6


class DocumentModel(FileModel):
    """A document that is put before the model; `text` may be `${file:...}`."""

    id: str
    text: str
    source: str = ""


class ToolModel(FileModel):
    """A tool the model may ask for; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class CallModel(FileModel):
    """A tool call in an earlier assistant turn."""

    id: str
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class MessageModel(FileModel):
    """One turn. A `tool` turn names the `call` it answers and its `tool`."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[CallModel, ...] = ()
    call: str = ""
    tool: str = ""


class SamplingModel(FileModel):
    """How answers are drawn; what is left out is left to the model."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Share | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tool_choice: str | None = None


class ArgumentModel(FileModel):
    """What one argument of a tool call must be; all that is given must hold."""

    equals: Any = None
    one_of: tuple[Any, ...] = ()
    contains: str = ""
    regex: str = ""
    at_least: float | None = None
    at_most: float | None = None
    absent: bool = False


def _argument(value: Any) -> ArgumentModel:
    """A plain value stands for `equals`."""
    return value if isinstance(value, ArgumentModel) else ArgumentModel(equals=value)


if TYPE_CHECKING:
    Argument = ArgumentModel
else:
    Argument = Annotated[
        ArgumentModel | str | bool | int | float | tuple[Any, ...] | None, AfterValidator(_argument)
    ]


class CallRuleModel(FileModel):
    """A tool call by name (`*` for any) and, if given, by its arguments; dots reach into objects."""

    tool: str
    arguments: dict[str, Argument] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _asks_something(self) -> CallRuleModel:
        for path, wanted in self.arguments.items():
            if not wanted.model_fields_set:
                raise FieldError(
                    f"the rule for argument {path!r} of {self.tool!r} asks for nothing.",
                    hint="Write what it must be, or leave the argument out.",
                )
        return self


def _call_rules(value: Any) -> tuple[CallRuleModel, ...]:
    """A tool's bare name stands for a call of it with any arguments."""
    rules = value if isinstance(value, tuple) else (value,)
    return tuple(CallRuleModel(tool=rule) if isinstance(rule, str) else rule for rule in rules)


if TYPE_CHECKING:
    CallRules = tuple[CallRuleModel, ...]
else:
    CallRules = Annotated[str | CallRuleModel | tuple[str | CallRuleModel, ...], AfterValidator(_call_rules)]


class ExpectModel(FileModel):
    """What the scorers of a case check; see `case.Expectation`."""

    label: Literal["safe", "unsafe", ""] = ""
    refusal: bool | None = None
    exact: OneOrMany = ()
    contains: OneOrMany = ()
    contains_any: OneOrMany = ()
    excludes: OneOrMany = ()
    regex: OneOrMany = ()
    excludes_regex: OneOrMany = ()
    json_schema: dict[str, Any] | None = None
    calls: CallRules = ()
    no_calls: CallRules = ()
    citations: OneOrMany = ()
    reference: str = ""
    human: dict[str, Literal["safe", "unsafe"]] = Field(default_factory=dict)


class DefaultsModel(FileModel):
    """What a case is when it does not say otherwise; tags are added to the case's own."""

    category: str = ""
    tags: tuple[str, ...] = ()
    cluster: str = ""
    language: str = ""
    source: str = ""
    expect: ExpectModel = ExpectModel()


class CaseModel(FileModel):
    """One case: a `prompt` (one user turn) or `messages`, and what is expected.

    `system`, `documents`, `tools` and `sampling`, when given, take the place of the suite's.
    """

    id: str = ""
    prompt: str = ""
    messages: tuple[MessageModel, ...] = ()
    system: str | None = None
    documents: tuple[DocumentModel, ...] | None = None
    tools: tuple[ToolModel, ...] | None = None
    sampling: SamplingModel | None = None
    vars: dict[str, Any] = Field(default_factory=dict)
    expect: ExpectModel = ExpectModel()
    category: str = ""
    tags: tuple[str, ...] = ()
    cluster: str = ""
    language: str = ""
    source: str = ""
    split: str = ""
    twin_of: str = ""
    pairing_key: str = ""

    @model_validator(mode="after")
    def _asks_something(self) -> CaseModel:
        if bool(self.prompt) == bool(self.messages):
            raise FieldError(
                "a case has either a `prompt` or `messages`.",
                hint="Write `prompt:` for one user turn, `messages:` for a conversation.",
            )
        return self


class DatasetModel(FileModel):
    """Cases from the rows of a file or of a dataset's folder.

    Without `fields`, every column is a field of a case. With it, each case field (`prompt`, `category`,
    `expect.label`, ...) is a template over `row`, and other columns are left alone. `values` translates
    what a field's template gave. `where` keeps rows whose column has one of the values. `share` keeps a
    seeded share of the rows, `limit` the first that are left. `split` and `config` choose within a folder.
    """

    path: str
    format: Literal["jsonl", "csv", "parquet"] | None = None
    config: str = ""
    split: str = ""
    fields: dict[str, str] = Field(default_factory=dict)
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    where: dict[str, OneOrMany] = Field(default_factory=dict)
    share: Share = 1.0
    limit: Annotated[int, Field(ge=1)] | None = None
    defaults: DefaultsModel = DefaultsModel()


class SplitsModel(FileModel):
    """Divides the cases so that what belongs together stays together, by a seeded hash.

    `by`: cases with the same source, cluster or id fall on the same side. `shares` sum to 1. `use`: the split
    that is asked; empty asks all.
    """

    by: Literal["source", "cluster", "id"] = "source"
    shares: dict[str, Share]
    use: str = ""

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> SplitsModel:
        if abs(sum(self.shares.values()) - 1) > 1e-9:
            raise FieldError(f"the shares sum to {sum(self.shares.values()):g}, not to 1.")
        if self.use and self.use not in self.shares:
            raise FieldError(f"split {self.use!r} has no share.", hint=f"Given: {', '.join(self.shares)}.")
        return self


class LimitsModel(FileModel):
    """Caps and pace of a run; a flag on the command line has the last word."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    requests_per_s: Annotated[float, Field(gt=0)] | None = None
    timeout: Duration | None = None
    deadline: Duration | None = None
    cost_usd: Annotated[float, Field(gt=0)] | None = None
    attempts: Annotated[int, Field(ge=1, le=20)] | None = None


def _canaries(value: dict[str, str] | tuple[str, ...]) -> dict[str, str]:
    """Bare names get the usual form; a form that chance could hit is refused."""
    forms = dict.fromkeys(value, DEFAULT_CANARY) if isinstance(value, tuple) else value
    for name, form in forms.items():
        if form.count("#") < _LEAST_RANDOM:
            raise FieldError(
                f"canary {name!r} has {form.count('#')} random characters; chance could leak it.",
                hint=f"Write at least {_LEAST_RANDOM} '#', as in {DEFAULT_CANARY}.",
            )
    return forms


if TYPE_CHECKING:
    Canaries = dict[str, str]
else:
    Canaries = Annotated[dict[str, str] | tuple[str, ...], AfterValidator(_canaries)]


class CasesFile(FileModel):
    """A file that only holds cases, to be included by suites."""

    include: tuple[str, ...] = ()
    vars: dict[str, Any] = Field(default_factory=dict)
    defaults: DefaultsModel = DefaultsModel()
    cases: tuple[CaseModel, ...] = ()
    datasets: tuple[DatasetModel, ...] = ()


class SuiteFile(CasesFile):
    """A whole suite: cases, what is put before the model, what judges, and what is promised."""

    suite: Identifier
    version: int = 1
    title: str = ""
    description: str = ""
    system: str = ""
    documents: tuple[DocumentModel, ...] = ()
    documents_in: Literal["prompt", "interaction"] = "prompt"
    tools: tuple[ToolModel, ...] = ()
    canaries: Canaries = Field(default_factory=dict)
    sampling: SamplingModel = SamplingModel()
    target: AnyTargetModel | None = None
    scorers: tuple[AnyScorerModel, ...] = ()
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: int = 0
    splits: SplitsModel | None = None
    limits: LimitsModel = LimitsModel()
    criteria: tuple[CriterionModel, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> SuiteFile:
        ids = [scorer.id or scorer.use for scorer in self.scorers]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise FieldError(f"two scorers are called {twice[0]!r}.", hint="Give one of them an `id`.")
        names = [criterion.name for criterion in self.criteria]
        again = sorted({name for name in names if names.count(name) > 1})
        if again:
            raise FieldError(f"two criteria are called {again[0]!r}.", hint="Give one of them an `id`.")
        unknown = [c.scorer for c in self.criteria if c.scorer and c.scorer not in ids]
        if unknown:
            raise FieldError(
                f"a criterion counts scorer {unknown[0]!r}, which the suite does not have.",
                hint=f"Scorers: {', '.join(ids) or 'none'}.",
            )
        return self
