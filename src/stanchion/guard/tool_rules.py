"""What the policy's tool rules say about one call: an allow-list of names and limits on arguments."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from stanchion.core.decision import Effect
from stanchion.core.interaction import ToolCall
from stanchion.guard.policy_model import ArgumentRule, ToolRule, ToolRules

FORBIDDEN = "agent.forbidden_call"
MALFORMED = "agent.malformed_call"


class ToolObjection(msgspec.Struct, frozen=True, kw_only=True):
    """One thing against a call. `reason` names tools and arguments, never an argument's value."""

    rule_id: str
    effect: Effect
    category: str
    reason: str


def objections(
    rules: ToolRules,
    call: ToolCall,
    *,
    declared: Collection[str] | None = None,
    calls_before: int | None = None,
) -> tuple[ToolObjection, ...]:
    """All that speaks against a call, worst first; empty when it may go on.

    `declared` are the tools the request offers (None: not known); a tool that is neither declared nor named
    is refused even where the default is to allow. `calls_before` counts earlier calls of this tool in the
    session; None means not known, and a limit on calls then cannot be kept, so the call is refused.
    """
    found = sorted(_all(rules, call, declared, calls_before), key=lambda one: -one.effect.rank)
    return tuple(found)


def _all(
    rules: ToolRules, call: ToolCall, declared: Collection[str] | None, calls_before: int | None
) -> Iterator[ToolObjection]:
    rule = rules.named.get(call.name)
    shown = _shown(call.name)
    if rule is None:
        if declared is not None and call.name not in declared:
            yield _forbidden("tools.default", Effect.BLOCK, f"tool {shown} was not offered.")
        elif rules.default is not Effect.ALLOW:
            yield _forbidden("tools.default", rules.default, f"tool {shown} is not named in the policy.")
        rule = ToolRule()
    elif rule.effect is not Effect.ALLOW:
        what = "may not be called" if rule.effect is Effect.BLOCK else "needs a person's approval"
        yield _forbidden(f"tools.{call.name}", rule.effect, rule.message or f"tool {shown} {what}.")
    fault = _malformed(call)
    if fault:
        yield ToolObjection(
            rule_id="tools.arguments",
            effect=Effect.BLOCK,
            category=MALFORMED,
            reason=f"the arguments of tool {shown} {fault}.",
        )
        return
    if rule.calls_per_session is not None:
        yield from _too_many(call.name, rule.calls_per_session, calls_before)
    yield from _arguments(call.name, rule, call.arguments or {})


def _too_many(name: str, limit: int, before: int | None) -> Iterator[ToolObjection]:
    if before is None:
        reason = f"tool {_shown(name)} may be called {limit} times in a session, and there is no session."
        yield _forbidden(f"tools.{name}.calls_per_session", Effect.BLOCK, reason)
    elif before >= limit:
        reason = f"tool {_shown(name)} was called {before} times in this session; the limit is {limit}."
        yield _forbidden(f"tools.{name}.calls_per_session", Effect.BLOCK, reason)


def _arguments(name: str, rule: ToolRule, arguments: Mapping[str, Any]) -> Iterator[ToolObjection]:
    if rule.only_named_arguments:
        for key in arguments:
            if key not in rule.arguments:
                reason = f"argument {_shown(key)} of tool {_shown(name)} is not named in the policy."
                yield _forbidden(f"tools.{name}.only_named_arguments", Effect.BLOCK, reason)
    for key, limit in rule.arguments.items():
        fault = argument_fault(limit, arguments[key]) if key in arguments else "is missing"
        if fault == "is missing" and not limit.required:
            continue
        if fault:
            reason = f"argument {_shown(key)} of tool {_shown(name)} {fault}."
            yield _forbidden(f"tools.{name}.arguments.{key}", limit.otherwise, reason)


def argument_fault(limit: ArgumentRule, value: Any) -> str:
    """What is wrong with a value, without saying the value; empty when nothing is.

    A list is right when each of its items is.
    """
    if isinstance(value, list | tuple):
        return next((fault for item in value if (fault := argument_fault(limit, item))), "")
    if limit.minimum is not None or limit.maximum is not None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "must be a number"
        if limit.minimum is not None and value < limit.minimum:
            return f"must be at least {limit.minimum:g}"
        if limit.maximum is not None and value > limit.maximum:
            return f"must be at most {limit.maximum:g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    if limit.max_characters is not None and len(text) > limit.max_characters:
        return f"has more than {limit.max_characters} characters"
    if limit.allowed and not any(fnmatch.fnmatchcase(text, pattern) for pattern in limit.allowed):
        return "is not one of the allowed values"
    if limit.pattern and not _fits(limit.pattern, text):
        return "does not have the allowed form"
    return ""


def _fits(pattern: str, text: str) -> bool:
    import re2

    return re2.fullmatch(pattern, text) is not None


def _malformed(call: ToolCall) -> str:
    """Arguments that are no object, or whose source says something else than what was read from it."""
    if call.arguments is None:
        return "are not a JSON object"
    if not call.raw_arguments:  # an empty source means no arguments
        return "differ from their source" if call.raw_arguments == "" and call.arguments else ""
    try:
        again = json.loads(call.raw_arguments, object_pairs_hook=_no_duplicates)
    except _DuplicateKeyError:
        return "name a key twice"
    except (ValueError, RecursionError):
        return "are not valid JSON"
    return "" if again == call.arguments else "differ from their source"


class _DuplicateKeyError(Exception):
    """Two readers of such an object may see two different calls."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


def _forbidden(rule_id: str, effect: Effect, reason: str) -> ToolObjection:
    return ToolObjection(rule_id=rule_id, effect=effect, category=FORBIDDEN, reason=reason)


def _shown(name: str) -> str:
    """A name a model wrote, safe to put in a message: printable and short."""
    return repr(name if len(name) <= 64 else name[:61] + "...")
