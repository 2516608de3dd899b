"""Which parameters of a request may go to a provider, beyond those that the gateway has words for.

An allow-list for each API: what its documentation names passes, except what steers. A steering parameter
chooses another model, provider, address, stored context or source of data than the one that the key's scope,
the switches and the gate were asked about; it passes only where the provider's section allows it by name
(`allow_parameters`). What nobody knows is blocked, dropped or passed as the section says.

Sources: the parameter lists of the OpenAI and Anthropic API references and of their Python clients'
request types; for the steering ones also the request bodies of OpenRouter, LiteLLM, Azure OpenAI and vLLM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core.errors import did_you_mean
from stanchion.gateway.anthropic_headers import check_headers
from stanchion.gateway.builtin_tools import check_tools
from stanchion.gateway.json_body import invalid
from stanchion.gateway.upstream import Provider
from stanchion.models.wire import Request

_SHARED = frozenset(
    {"metadata", "user", "safety_identifier", "service_tier", "store", "stream_options", "tool_choice"}
    | {"parallel_tool_calls", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    | {"top_logprobs"}
)
_SAMPLING = frozenset(  # of servers that speak the chat API: vLLM, llama.cpp, Ollama, OpenRouter
    {"top_k", "min_p", "top_a", "typical_p", "repetition_penalty", "length_penalty", "min_tokens"}
)
_KNOWN: dict[str, frozenset[str]] = {
    "openai.chat": _SHARED
    | _SAMPLING
    | {"audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "modalities"}
    | {"prediction", "presence_penalty", "reasoning_effort", "response_format", "verbosity"},
    "openai.responses": _SHARED
    | {"background", "context_management", "include", "max_tool_calls", "reasoning", "text", "truncation"},
    "openai.embeddings": frozenset({"dimensions", "encoding_format", "user"}),
    "openai.moderations": frozenset(),
    "anthropic.messages": frozenset(
        {"cache_control", "context_management", "metadata", "output_config", "output_format", "service_tier"}
        | {"thinking", "tool_choice", "top_k", "speed"}
    ),
}
_KNOWN["anthropic.count_tokens"] = _KNOWN["anthropic.messages"]
_STEERING = frozenset(
    # another model, provider or route
    {"models", "model_list", "route", "router", "routing", "fallback", "fallbacks", "fallback_models"}
    | {"context_window_fallbacks", "content_policy_fallbacks", "fallback_credit_token", "provider"}
    | {"providers", "custom_llm_provider", "deployment", "deployment_id", "engine", "preset", "plugins"}
    | {"transforms", "model_info", "mock_response", "moderation", "lora_request", "adapter_id"}
    # another address, account or credential
    | {"api_base", "base_url", "api_url", "url", "endpoint", "api_key", "api_version", "organization"}
    | {"extra_body", "extra_headers", "extra_query", "headers", "proxy", "inference_geo", "region"}
    | {"region_name", "aws_region_name", "vertex_project", "vertex_location", "workspace_id"}
    | {"user_profile_id", "guardrails", "litellm_params", "proxy_server_request", "additional_drop_params"}
    | {"allowed_openai_params", "drop_params", "no-log", "use_in_pass_through", "cache"}
    # stored context, or a source of data that does not pass the guard
    | {"previous_response_id", "conversation", "conversation_id", "prompt", "prompt_id", "prompt_variables"}
    | {"thread", "thread_id", "assistant_id", "container", "mcp_servers", "data_sources", "datasources"}
    | {"file_ids", "vector_store_ids", "knowledge_base_id", "web_search_options", "documents", "attachments"}
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")


def check_extras(request: Request, *, surface: str, provider: Provider, headers: Mapping[str, str]) -> None:
    """Stop a request with a parameter, a built-in tool, a version or a beta that may not go to this provider.

    Raises:
        Refused: `invalid` (400), naming the parameter and never its value.
    """
    if request.interaction.tools:
        check_tools(request, provider=provider)
    if headers and surface in provider.apis:
        check_headers(headers, provider=provider)
    if not request.extras:
        return
    known = _KNOWN.get(surface, frozenset())
    for name in request.extras:
        if name in provider.allow_parameters:
            continue
        if _steers(name):
            raise invalid(
                "parameter_not_allowed",
                f"{name}: this parameter chooses a model, address or source of data past the gateway.",
                "Leave it out; or the operator lists it in allow_parameters of the provider.",
            )
        if name not in known and provider.unknown_parameters == "block":
            raise invalid(
                "unknown_parameter",
                f"{_shown(name)} is not known for this API, and unknown ones do not pass here.",
                did_you_mean(name[:64], known)
                or "Leave it out; or the operator lists it in allow_parameters of the provider.",
            )


def passed_extras(request: Request, *, surface: str, provider: Provider) -> dict[str, Any]:
    """The extras that go to this provider, after `check_extras` let the request pass."""
    if provider.unknown_parameters != "drop" or not request.extras:
        return request.extras
    known = _KNOWN.get(surface, frozenset()) | provider.allow_parameters
    return {name: value for name, value in request.extras.items() if name in known}


def with_passed_extras(request: Request, *, surface: str, provider: Provider) -> Request:
    """The request as this provider may get it."""
    passed = passed_extras(request, surface=surface, provider=provider)
    return request if len(passed) == len(request.extras) else msgspec.structs.replace(request, extras=passed)


def _steers(name: str) -> bool:
    """Whether it is a steering parameter; servers that do not look at case are not told apart."""
    return name.strip().casefold() in _STEERING


def _shown(name: str) -> str:
    """A parameter's name for people; a client's text that is no name is not repeated."""
    return f"the parameter {name!r}" if _PLAIN.match(name) else "a parameter (its name is not a plain word)"
