"""What speaks against a tool call before any detector reads it: tool rules, schema, depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stanchion.core.decision import Effect
from stanchion.core.errors import UsageError
from stanchion.core.finding import Finding
from stanchion.core.interaction import ToolCall, ToolDefinition
from stanchion.guard.argument_schema import schema_faults
from stanchion.guard.examine import TOOLS, Ground, own_finding
from stanchion.guard.fields import json_depth
from stanchion.guard.policy_model import Policy
from stanchion.guard.tool_rules import MALFORMED, ToolObjection, objections


def call_objections(
    policy: Policy, call: ToolCall, definition: ToolDefinition | None, **known: Any
) -> Iterator[tuple[Ground, Finding]]:
    """All that tool rules, schema and limits have against a call, each as ground and finding.

    `known` goes to `tool_rules.objections`.
    """
    limit = policy.limits.argument_depth
    depth = json_depth(call.arguments)
    if depth > limit:
        reason = f"arguments nested {depth} levels deep are beyond the limit of {limit}."
        yield own_ground("limits.argument_depth", Effect.BLOCK, "input.limit", reason)
        return
    found = objections(policy.tools, call, **known)
    for one in (*found, *schema_objections(call, definition)):
        yield own_ground(one.rule_id, one.effect, one.category, one.reason)


def own_ground(rule_id: str, effect: Effect, category: str, reason: str) -> tuple[Ground, Finding]:
    """A ground that no detector gave, with the finding that says so."""
    ground = Ground(effect=effect, rule_id=rule_id, category=category, reason=reason)
    return ground, own_finding(TOOLS, category, field="", rule=rule_id, reason=reason)


def schema_objections(call: ToolCall, definition: ToolDefinition | None) -> Iterator[ToolObjection]:
    """What the tool's own JSON schema has against a call; a schema that cannot be checked is against it."""
    if definition is None or not definition.parameters or call.arguments is None:
        return
    try:
        faults = schema_faults(definition.parameters, call.arguments)
    except UsageError as error:
        faults = (f"cannot be checked: {error.message}",)
    for fault in faults[:3]:
        yield ToolObjection(
            rule_id="tools.schema",
            effect=Effect.BLOCK,
            category=MALFORMED,
            reason=f"tool {call.name[:64]!r}: {fault}.",
        )
