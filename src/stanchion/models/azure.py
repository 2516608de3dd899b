"""Azure OpenAI: deployments or the v1 path, keys or Entra tokens, and what its content filter says.

Source: Azure OpenAI in Foundry Models, REST API reference and "content filtering". The filter's results stand
beside the answer (`content_filter_results` of a choice, `prompt_filter_results` of the whole). They are
decoded; a result that filtered or detected something becomes a part of the answer of its own, so that it is
in the record and a policy can act on it. A prompt that the filter stopped is an answer with the finish reason
`content_filter`, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import (
    End,
    FinishReason,
    Message,
    Opaque,
    Reply,
    Role,
    StreamEvent,
    UnknownEvent,
)
from stanchion.models import openai, openai_answers
from stanchion.models.answer_reader import AnswerReader, SseReader
from stanchion.models.http_client import Call, checked_url, json_body, shown_url
from stanchion.models.http_errors import StatusError
from stanchion.models.providers import SecretLike, base_headers, secret_text, with_query
from stanchion.models.upstreams import UPSTREAMS, ChatUpstream, UpstreamCodec
from stanchion.models.wire import JsonObject, as_list, as_object, as_unavailable

FILTERED = "azure:content_filter"
_PATHS = {
    "openai.chat": "chat/completions",
    "openai.responses": "responses",
    "openai.embeddings": "embeddings",
}
_BESIDE = ("content_filter_results", "content_filter_offsets", "prompt_filter_results")


class AzureOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a resource is addressed.

    `endpoint` is the resource, such as `https://NAME.openai.azure.com`. `path` `v1` is the newer one, without
    dated versions; `deployments` needs an `api_version` such as `2024-10-21`. The deployment is the model's
    name of the call. `auth` `bearer` sends an Entra token instead of a key.
    """

    endpoint: str
    path: Literal["v1", "deployments"] = "v1"
    api_version: str = ""
    api: str = "openai.chat"
    auth: Literal["key", "bearer"] = "key"


class AzureProvider:
    """One resource.

    Raises:
        UsageError: for an API that it does not have, and for a missing version.
    """

    def __init__(self, options: AzureOptions, *, key: SecretLike) -> None:
        if options.api not in _PATHS:
            raise UsageError(
                f"Azure OpenAI has no API {options.api!r} here.", hint=f"Allowed: {', '.join(_PATHS)}."
            )
        if options.path == "deployments" and not options.api_version:
            raise UsageError("api_version is missing.", hint="For example 2024-10-21, or use the path v1.")
        if options.path == "deployments" and options.api == "openai.responses":
            raise UsageError("the responses API is on the path v1 only.")
        self._base = checked_url(options.endpoint, what="the endpoint of the Azure resource")
        self._base = self._base.removesuffix("/openai/v1").removesuffix("/openai")
        self._options = options
        secret = secret_text(key)
        self._own = {"api-key": secret} if options.auth == "key" else {"authorization": f"Bearer {secret}"}
        self.codec: UpstreamCodec = AzureChat() if options.api == "openai.chat" else UPSTREAMS[options.api]

    async def call(
        self, body: JsonObject, *, model: str, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Call:
        """See `Provider.call`; the model's name is the deployment's."""
        url = self._url(model)
        return Call(
            what=f"deployment {model!r} at {shown_url(url)}",
            url=url,
            headers=base_headers(headers, self._own),
            body=json_body({**body, "model": model}),
        )

    def _url(self, deployment: str) -> str:
        options = self._options
        if not deployment or not deployment.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UsageError(f"{deployment[:60]!r} cannot be the name of a deployment.")
        if options.path == "v1":
            return with_query(
                f"{self._base}/openai/v1/{_PATHS[options.api]}", api_version=options.api_version
            )
        path = f"{self._base}/openai/deployments/{deployment}/{_PATHS[options.api]}"
        return with_query(path, api_version=options.api_version)

    def refusal(self, error: UnavailableError) -> Reply | None:
        """The empty answer of a prompt that the content filter stopped."""
        labels = error.labels if isinstance(error, StatusError) else ()
        if error.status != 400 or "content_filter" not in labels:
            return None
        part = Opaque(kind=FILTERED, payload={"prompt": {"filtered": True}})
        message = Message(role=Role.ASSISTANT, parts=(part,))
        return Reply(message=message, finish_reason=FinishReason.CONTENT_FILTER)


class AzureChat(ChatUpstream):
    """Chat completions with the results of the content filter."""

    def __init__(self, style: openai.Style = openai.PLAIN) -> None:
        super().__init__(style)

    def decode_reply(self, body: Any) -> Reply:
        """A chat completion; see the module."""
        reply = super().decode_reply(body)
        with as_unavailable(self.name):
            found = filter_results(body)
        if not is_flagged(found):
            return reply
        part = Opaque(kind=FILTERED, payload=found)
        message = msgspec.structs.replace(reply.message, parts=(*reply.message.parts, part))
        return msgspec.structs.replace(reply, message=message)

    def reader(self) -> AnswerReader:
        """A reader of chunks; see the module."""
        return SseReader(AzureChunkDecoder(), text_key="content")


class AzureChunkDecoder:
    """Chunks of one answer -> events; what the filter found comes before `End`."""

    def __init__(self) -> None:
        self.found: JsonObject = {}
        self._chunks = openai_answers.ChunkDecoder()

    def feed(self, chunk: Any) -> list[StreamEvent]:
        """The events of one chunk; see `ChunkDecoder.feed`."""
        with as_unavailable("openai.chat"):
            for key, value in filter_results(chunk).items():
                self.found[key] = {**self.found.get(key, {}), **value}
        return self._chunks.feed(_without_results(chunk))

    def finish(self, *, is_marked: bool = True) -> list[StreamEvent]:
        """What the filter found, and `End`."""
        events = self._chunks.finish(is_marked=is_marked)
        if events and isinstance(events[-1], End) and is_flagged(self.found):
            return [UnknownEvent(kind=FILTERED, payload=self.found), *events]
        return events


def filter_results(body: Any) -> JsonObject:
    """The results for the prompt and for the answer, by category; empty where there are none.

    Raises:
        WireError: for a wrong shape.
    """
    fields = as_object(body, "body")
    found: JsonObject = {}
    for number, item in enumerate(as_list(fields.get("prompt_filter_results"), "prompt_filter_results")):
        where = f"prompt_filter_results[{number}]"
        results = as_object(as_object(item, where).get("content_filter_results") or {}, where)
        found["prompt"] = {**found.get("prompt", {}), **results}
    for item in as_list(fields.get("choices"), "choices"):
        said = as_object(item, "choices[]").get("content_filter_results")
        if said:
            found["answer"] = as_object(said, "choices[].content_filter_results")
    return {key: value for key, value in found.items() if value}


def is_flagged(found: JsonObject) -> bool:
    """Whether a result filtered or detected something, or the filter itself failed."""
    return any(
        isinstance(result, dict)
        and (result.get("filtered") is True or result.get("detected") is True or name == "error")
        for results in found.values()
        for name, result in results.items()
    )


def _without_results(chunk: Any) -> Any:
    if not isinstance(chunk, dict):
        return chunk
    choices = chunk.get("choices")
    plain = {key: value for key, value in chunk.items() if key not in _BESIDE}
    if isinstance(choices, list):
        plain["choices"] = [
            {k: v for k, v in choice.items() if k not in _BESIDE} if isinstance(choice, dict) else choice
            for choice in choices
        ]
    return plain
