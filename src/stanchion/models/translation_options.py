"""Parameters of requests between the APIs: what has a word on the other side, what is left out or refused.

Each API's further parameters (`Request.extras`) are read into a few neutral ones and written out again for
the API that is asked. A parameter without a rule is refused: leaving it out could change what the answer
means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from stanchion.core.interaction import Sampling
from stanchion.models.wire import JsonObject, WireError, as_object

CHAT = "openai.chat"
RESPONSES = "openai.responses"
MESSAGES = "anthropic.messages"
CONVERSE = "bedrock.converse"

_BETWEEN_OPENAI = frozenset({"metadata", "service_tier", "safety_identifier", "prompt_cache_key", "store"})
_NEUTRAL = _BETWEEN_OPENAI | {"user", "parallel_tool_calls", "reasoning_effort", "verbosity"}
_LEFT_OUT: Mapping[str, frozenset[str]] = {
    CHAT: frozenset(
        {"frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "prediction"}
        | {"prompt_cache_retention", "prompt_cache_options"}
    ),
    RESPONSES: frozenset(
        {"include", "truncation", "max_tool_calls", "stream_options", "top_logprobs", "background"}
        | {"prompt_cache_retention", "prompt_cache_options"}
    ),
    MESSAGES: frozenset({"top_k", "thinking", "service_tier", "cache_control", "inference_geo"}),
}

_KEEPS_NOT = ("store", False)


class Options(msgspec.Struct, kw_only=True):
    """Parameters in neutral words, the sampling they change, and what was left out."""

    values: JsonObject
    sampling: Sampling
    lost: list[str]


def read_options(extras: Mapping[str, Any], sampling: Sampling, *, api: str) -> Options:
    """The parameters of one API in neutral words.

    Raises:
        WireError: for a parameter that nothing on the other side stands for.
    """
    options = Options(values={}, sampling=sampling, lost=[])
    for key, value in extras.items():
        if key in _LEFT_OUT[api]:
            options.lost.append(key)
        elif key in _NEUTRAL and api != MESSAGES:
            options.values[key] = value
        elif not _read_special(options, key, value):
            raise WireError(
                f"{key}: the provider of this model has no such parameter.",
                hint="Leave it out, or ask a model whose provider speaks the same API.",
            )
    return options


def _read_special(options: Options, key: str, value: Any) -> bool:
    """Parameters that say the same in another form; whether this is one."""
    match key, value:
        case "response_format", dict(wanted):
            return _read_format(options, wanted.get("json_schema", wanted), wanted.get("type"))
        case "text", {**said}:
            if said.get("verbosity") is not None:
                options.values["verbosity"] = said["verbosity"]
            wanted = as_object(said.get("format") or {"type": "text"}, "text.format")
            return set(said) <= {"format", "verbosity"} and _read_format(options, wanted, wanted.get("type"))
        case "reasoning", {**said}:
            options.lost += [f"reasoning.{name}" for name in said if name != "effort"]
            if said.get("effort") is not None:
                options.values["reasoning_effort"] = said["effort"]
            return True
        case "metadata", {**said}:
            options.lost += [f"metadata.{name}" for name in said if name != "user_id"]
            if isinstance(said.get("user_id"), str):
                options.values["user"] = said["user_id"]
            return True
        case "output_config", {"effort": str(effort), **rest} if not rest:
            options.values["reasoning_effort"] = effort
            return True
        case "tool_choice", {"type": str(kind), "disable_parallel_tool_use": bool(alone), **rest}:
            return _read_choice(options, kind, alone, rest.get("name"))
        case "modalities", ["text"]:
            return True
        case _:
            return False


def _read_choice(options: Options, kind: str, alone: bool, name: Any) -> bool:
    words = {"auto": "auto", "any": "required", "none": "none"}
    choice = f"tool:{name}" if kind == "tool" and isinstance(name, str) else words.get(kind)
    options.values["parallel_tool_calls"] = not alone
    options.sampling = msgspec.structs.replace(options.sampling, tool_choice=choice)
    return choice is not None


def _read_format(options: Options, inner: Any, kind: Any) -> bool:
    """A wanted form of the answer; a schema is always kept to strictly here."""
    match kind, inner:
        case "text", _:
            return True
        case "json_object", _:
            options.values["json_object"] = True
            return True
        case "json_schema", {"schema": dict(schema)}:
            name = inner.get("name")
            if inner.get("description") is not None:
                options.lost.append("response_format.description")
            options.sampling = msgspec.structs.replace(
                options.sampling,
                response_schema=schema,
                response_name=name if isinstance(name, str) else None,
            )
            return True
        case _:
            return False


def write_options(options: Options, *, api: str, has_tools: bool) -> JsonObject:
    """The parameters as the API that is asked says them; what it has no word for is added to `lost`.

    Raises:
        WireError: for a form of the answer that the API cannot be asked for.
    """
    values = dict(options.values)
    if api in (CHAT, RESPONSES):
        return _written_openai(options, values, api)
    if values.pop("json_object", False):
        raise WireError(
            "response_format: the provider of this model takes no JSON mode without a schema.",
            hint="Send a JSON schema.",
        )
    extras: JsonObject = {}
    if api == MESSAGES:
        extras |= _written_messages(options, values, has_tools=has_tools)
    options.lost += sorted(k for k, value in values.items() if value is not None and (k, value) != _KEEPS_NOT)
    options.sampling = _within(options.sampling, options.lost)
    return extras


def _written_openai(options: Options, values: JsonObject, api: str) -> JsonObject:
    extras: JsonObject = {}
    is_json = values.pop("json_object", False)
    if api == CHAT:
        extras |= {"response_format": {"type": "json_object"}} if is_json else {}
        return extras | values
    effort, verbosity = values.pop("reasoning_effort", None), values.pop("verbosity", None)
    if effort is not None:
        extras["reasoning"] = {"effort": effort}
    text: JsonObject = {"format": {"type": "json_object"}} if is_json else {}
    text |= {"verbosity": verbosity} if verbosity is not None else {}
    if text:
        schema = options.sampling.response_schema
        if schema is not None:
            name = options.sampling.response_name or "response"
            text["format"] = {"type": "json_schema", "name": name, "schema": schema, "strict": True}
        extras["text"] = text
    if options.sampling.seed is not None:
        options.lost.append("seed")
        options.sampling = msgspec.structs.replace(options.sampling, seed=None)
    return {"store": False} | extras | values


def _written_messages(options: Options, values: JsonObject, *, has_tools: bool) -> JsonObject:
    extras: JsonObject = {}
    person = values.pop("user", None)
    if person is not None:
        extras["metadata"] = {"user_id": person}
    is_parallel = values.pop("parallel_tool_calls", None)
    if is_parallel is not None and not isinstance(is_parallel, bool):
        options.lost.append("parallel_tool_calls")
    if is_parallel is False and has_tools:
        choice = options.sampling.tool_choice or "auto"
        kind = {"auto": "auto", "required": "any", "none": "none"}.get(choice, "tool")
        wire: JsonObject = {"type": kind, "disable_parallel_tool_use": True}
        extras["tool_choice"] = wire | ({"name": choice.removeprefix("tool:")} if kind == "tool" else {})
        options.sampling = msgspec.structs.replace(options.sampling, tool_choice=None)
    return extras


def _within(sampling: Sampling, lost: list[str]) -> Sampling:
    """The sampling within what the API takes: no seed, temperatures up to 1."""
    if sampling.seed is not None:
        lost.append("seed")
    heat = sampling.temperature
    if heat is not None and heat > 1:
        lost.append("temperature")
        heat = 1.0
    return msgspec.structs.replace(sampling, seed=None, temperature=heat)


def counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name was left out."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
