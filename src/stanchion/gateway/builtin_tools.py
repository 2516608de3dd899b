"""Tools that a provider runs itself: searches, code, files, remote servers.

What such a tool is asked and brings back goes from the provider to the model, and no check sees it; what
comes of it in an answer is a part without a rule. So a request that holds one is stopped before anybody is
asked. A provider's `allow_tools` lets single types through; their items in answers are then passed or blocked
by the policy's rule for opaque parts.

Tools that the client runs are no built-in ones, even where a vendor defines them: their calls are tool calls
like any other. Source: the tool types of the OpenAI and Anthropic API references and of their Python clients.
"""

from __future__ import annotations

import re
from typing import Any

from stanchion.core.interaction import ToolDefinition
from stanchion.gateway.json_body import invalid
from stanchion.gateway.upstream import Provider
from stanchion.models.wire import Request

_OF_CLIENTS = frozenset({"function", "custom", "namespace"})
# defined by Anthropic, run by the client, called by plain tool_use blocks; dated versions follow the name
_DATED = re.compile(r"(?:bash|text_editor|memory|computer)_[0-9]{8}\Z")
_DEEPEST = 8  # namespaces in namespaces; deeper ones are not looked through, and so not let through
_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def check_tools(request: Request, *, provider: Provider) -> None:
    """Stop a request with a tool that the provider runs itself.

    Raises:
        Refused: `invalid` (400), naming the type of the tool.
    """
    for tool in request.interaction.tools:
        if tool.extra is None:
            continue
        kind = builtin_type(tool)
        if kind and kind not in provider.allow_tools:
            named = f"{kind!r}" if _PLAIN.match(kind) else "of this type"
            raise invalid(
                "builtin_tool_not_allowed",
                f"tools: a tool {named} is run by the provider, where no check sees what it does and brings.",
                "Leave it out, or offer a function that you run; or the operator lists the type in "
                "allow_tools of the provider, and the policy's rule for opaque parts decides on its items.",
            )


def builtin_type(tool: ToolDefinition) -> str:
    """The type of a tool that the provider runs; empty for one that the client runs."""
    return _type_in(None if tool.extra is None else tool.extra.payload, depth=_DEEPEST)


def _type_in(payload: Any, *, depth: int) -> str:
    """The first type in a tool's definition, and in the tools that a namespace holds, that is no client's."""
    kind = payload.get("type") if isinstance(payload, dict) else None
    if kind is None or _DATED.match(str(kind)):
        return ""
    if kind not in _OF_CLIENTS or depth == 0:
        return str(kind)
    held = payload.get("tools")
    members = held if isinstance(held, list) else []
    return next((found for one in members if (found := _type_in(one, depth=depth - 1))), "")
