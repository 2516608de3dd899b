"""The words of a request beside its messages, documents and tools: what else leaves for the provider.

Every text is checked as words of unknown origin on the input. Where people's words belong (metadata, a
predicted answer, who asks, a schema's values) it can be rewritten; in a stop sequence, a tool's name, an id
or a parameter that nobody knows a rewritten text would ask for something else, so what would be redacted
there ends the request. Those texts are one field, a line each. Words that the APIs themselves define are
passed over: an exact list, and no length below which nothing is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stanchion.core.decision import Surface
from stanchion.core.interaction import Interaction, Reasoning, Text, ToolCall, ToolResult
from stanchion.core.origin import Origin
from stanchion.guard.fields import TextField, child_path, json_texts, rewrite_json

_FREE = frozenset(
    {"metadata", "user", "safety_identifier", "prompt_cache_key", "prediction", "response_format", "text"}
)
_SCHEMA_NAMES = ("parameters.response_format.json_schema.name", "parameters.text.format.name")
_TYPES = "string number integer boolean object array null text json_object json_schema function tool"
_SCHEMA = (
    "type properties required additionalProperties items enum description name schema strict anyOf allOf"
    " oneOf const format minimum maximum minLength maxLength minItems maxItems pattern title default"
    " $ref $defs"
)
_CHOICES = "auto none any required disabled enabled adaptive default flex priority standard_only scale"
_MORE = "minimal low medium high xhigh concise detailed content in_memory 24h ephemeral 5m 1h grammar medium"
_NAMES = (
    "tool_choice response_format json_schema metadata user user_id prediction content n logprobs top_logprobs"
    " frequency_penalty presence_penalty logit_bias parallel_tool_calls service_tier store stream_options"
    " include_usage reasoning_effort reasoning effort summary verbosity modalities safety_identifier"
    " prompt_cache_key prompt_cache_retention top_k thinking budget_tokens output_config format text"
    " truncation include previous_response_id max_tool_calls disable_parallel_tool_use container dimensions"
    " encoding_format float base64 mode"
)
_DEFINED = frozenset(f"{_TYPES} {_SCHEMA} {_CHOICES} {_MORE} {_NAMES}".split())
# what a vendor sealed: the letters of base 64, too many of them for a key or a sentence
_SEALED = re.compile(r"[A-Za-z0-9+/_-]{100,}={0,2}\Z")

_SMALL = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?\Z")  # a number too short for any card or telephone


def parameter_fields(interaction: Interaction, parameters: Mapping[str, Any]) -> Iterator[TextField]:
    """Every text of the sampling, of the calls' ids and names, and of the parameters (JSON) beside them."""
    fixed = list(_fixed_texts(interaction))
    sampling = interaction.sampling
    if not (fixed or parameters or sampling.response_schema):
        return
    values = [
        (f"parameters{child_path('', name)}", value, name in _FREE) for name, value in parameters.items()
    ]
    if sampling.response_schema:
        values.append(("sampling.response_schema", sampling.response_schema, True))
    fixed += parameters
    for place, value, is_free in values:
        for path, text, is_value in json_texts(value, place):
            if is_free and is_value and path not in _SCHEMA_NAMES:
                if _says_something(text):
                    yield _field(path, text, is_rewritable=True)
            elif path.endswith("{keys}"):
                fixed += text.split("\n")
            else:
                fixed.append(text)
    words = [text for text in dict.fromkeys(fixed) if _says_something(text)]
    if words:
        yield _field("parameters", "\n".join(words), is_rewritable=False)


def _fixed_texts(interaction: Interaction) -> Iterator[str]:
    """Texts by which something is found again, or an answer is ended."""
    yield from interaction.sampling.stop
    if interaction.sampling.tool_choice:
        yield interaction.sampling.tool_choice
    if interaction.sampling.response_name:
        yield interaction.sampling.response_name
    for message in interaction.messages:
        for part in message.parts:
            if isinstance(part, Text):
                continue
            match part:
                case ToolCall():
                    yield part.id
                    yield part.name
                case ToolResult():
                    yield part.call_id
                    yield part.name
                case Reasoning(signature=str(signature)) if not _SEALED.match(signature):
                    yield signature
                case _:
                    pass


def _says_something(text: str) -> bool:
    return bool(text) and text not in _DEFINED and not _SMALL.match(text)


def _field(path: str, text: str, *, is_rewritable: bool) -> TextField:
    return TextField(
        field=path, surface=Surface.INPUT, origin=Origin.UNKNOWN, text=text, is_rewritable=is_rewritable
    )


def rewrite_parameters(parameters: Mapping[str, Any], texts: Mapping[str, str]) -> Mapping[str, Any]:
    """The parameters with other texts at the named fields; the very same object when there are none."""
    if not texts or not any(field.startswith("parameters") for field in texts):
        return parameters
    return {
        name: rewrite_json(value, f"parameters{child_path('', name)}", texts)
        for name, value in parameters.items()
    }
