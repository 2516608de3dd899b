"""The `target:` part of a suite file: one model per kind of target."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from stanchion.evals.criteria import Share
from stanchion.files.references import Secret
from stanchion.files.schema import FileModel


class TargetModel(FileModel):
    """What all targets share. `name` is how reports call it; the default is made from the rest."""

    name: str = ""


class EndpointTargetModel(TargetModel):
    """A model behind an OpenAI-compatible or Anthropic endpoint."""

    kind: Literal["endpoint"]
    api: Literal["openai", "anthropic"] = "openai"
    base_url: str
    model: str
    api_key: Secret | None = None


class HttpTargetModel(TargetModel):
    """Any HTTP application: a JSON body made from a template, an answer found by a path.

    In `body`, texts may hold `{{ prompt }}`, `{{ system }}`, `{{ session_id }}` and `{{ model }}`; the exact
    texts `{{ messages }}`, `{{ documents }}` and `{{ tools }}` stand for lists. `answer` and `calls` are
    dotted paths into the JSON of the response (`choices.0.message.content`); with neither, the body is the
    answer. A key that is missing or null at the end of `calls` means that no tool was called.
    """

    kind: Literal["http"]
    url: str
    method: Literal["POST", "PUT", "GET"] = "POST"
    headers: dict[str, Secret] = Field(default_factory=dict)
    body: Any = Field(default_factory=lambda: {"prompt": "{{ prompt }}"})
    answer: str = ""
    calls: str = ""
    max_bytes: Annotated[int, Field(ge=1)] = 4 * 1024 * 1024


class CallableTargetModel(TargetModel):
    """A Python function, sync or async: text to text, or Interaction to Interaction."""

    kind: Literal["callable"]
    function: str
    takes: Literal["text", "interaction"] = "text"


class LocalTargetModel(TargetModel):
    """The packaged local model, or a model file."""

    kind: Literal["local"]
    model: str = ""


class ScriptedTargetModel(TargetModel):
    """Answers from a script (its keys: `stanchion.models.script`); never counted as a model's."""

    kind: Literal["scripted"]
    script: dict[str, Any]


class RecordingTargetModel(TargetModel):
    """Answers from a recording (JSONL), found by the digest of the request."""

    kind: Literal["recording"]
    path: str


class DetectorTargetModel(TargetModel):
    """A detector as the thing under test: labelled texts in, flagged or not out."""

    kind: Literal["detector"]
    detector: str
    options: dict[str, Any] = Field(default_factory=dict)
    threshold: Share = 0.5
    origin: Literal["user", "retrieved", "tool_result", "model"] = "user"


class GuardTargetModel(TargetModel):
    """A policy as the thing under test, with or without the target that it protects."""

    kind: Literal["guard"]
    policy: str = "default"
    around: (
        EndpointTargetModel
        | HttpTargetModel
        | CallableTargetModel
        | LocalTargetModel
        | ScriptedTargetModel
        | None
    ) = Field(default=None, discriminator="kind")


AnyTargetModel = Annotated[
    EndpointTargetModel
    | HttpTargetModel
    | CallableTargetModel
    | LocalTargetModel
    | ScriptedTargetModel
    | RecordingTargetModel
    | DetectorTargetModel
    | GuardTargetModel,
    Field(discriminator="kind"),
]
