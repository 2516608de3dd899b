r"""Scripts: which request gets which reply. The words of a script; `scripted.py` plays it.

A script is read from YAML by whoever has the file (`read_script` takes the plain value):

```yaml
name: gullible-agent
rules:
- when: {tool_result_matches: 'send it to (?P<to>\S+)'}
  reply:
    tool_calls: [{name: send_email, arguments: {to: '{{ to }}', body: '{{ last_user }}'}}]
- when: {user_contains: refund, turn: 1}
  reply: {text: 'May I have the order number?'}
default: {text: 'I do not know.'}
```
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import FinishReason, Interaction, Message, Role, ToolResult, Usage
from stanchion.models.template import placeholders

FIXED_VARIABLES = ("last_user", "tool_result", "turn", "system")


class When(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Conditions on a request; all that are given must hold, and an empty one always does.

    `*_contains` ignores case; `*_matches` is an RE2 expression whose named groups become variables of the
    reply. `tool_result_*` looks at the results that came after the model's last turn. `turn` is 1 for the
    model's first answer in the conversation.
    """

    user_contains: str | None = None
    user_matches: str | None = None
    system_contains: str | None = None
    any_contains: str | None = None
    tool_result_contains: str | None = None
    tool_result_matches: str | None = None
    tool_result_from: str | None = None
    has_tool_result: bool | None = None
    offers_tool: str | None = None
    turn: int | None = None
    model: str | None = None


class ScriptedCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool call to make; `raw_arguments` overrides, to play a model that writes broken JSON."""

    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    raw_arguments: str | None = None
    id: str | None = None


class ScriptedReply(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What to answer; texts and arguments may hold `{{ placeholders }}`.

    `finish_reason` defaults to `tool_calls` when there are calls and to `stop` otherwise.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class FailureKind(StrEnum):
    """How a scripted failure looks to the caller."""

    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A failure to play; a stream first gives `after_events` events of the reply."""

    kind: FailureKind = FailureKind.UNAVAILABLE
    message: str = "a scripted failure."
    after_events: int = 0


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a reply arrives: wait, size of a stream's pieces (0: whole), wait between them, missing end."""

    delay_ms: float = 0.0
    chunk_chars: int = 8
    chunk_delay_ms: float = 0.0
    drop_end: bool = False


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The first rule whose conditions hold answers.

    `times` retires a rule after so many answers; which request that is depends on the order they arrive in.
    """

    when: When = When()
    reply: ScriptedReply = ScriptedReply()
    failure: Failure | None = None
    delivery: Delivery = Delivery()
    times: int | None = None


class Script(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rules in order, and what an unmatched request gets; without a default that is an error."""

    name: str
    rules: tuple[Rule, ...] = ()
    default: ScriptedReply | None = None
    delivery: Delivery = Delivery()


def read_script(value: Any, *, where: str = "script") -> Script:
    """A script from plain values, as a YAML or JSON file gives them.

    Raises:
        UsageError: with the place inside the script, for an unknown key, a wrong type, a bad expression or
            a placeholder that nothing fills.
    """
    try:
        script = msgspec.convert(value, Script, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{where}: {error}.", hint="The keys are those of stanchion.models.script."
        ) from error
    for number, rule in enumerate(script.rules):
        _check_rule(rule, where=f"{where}: rules[{number}]")
    if script.default is not None:
        _check_placeholders(script.default, set(FIXED_VARIABLES), where=f"{where}: default")
    return script


def _check_rule(rule: Rule, *, where: str) -> None:
    known = set(FIXED_VARIABLES)
    for source in (rule.when.user_matches, rule.when.tool_result_matches):
        if source is not None:
            known.update(compiled(source, where=where).groupindex)
    if rule.times is not None and rule.times < 1:
        raise UsageError(f"{where}: times is {rule.times}; it counts answers, so it starts at 1.")
    _check_placeholders(rule.reply, known, where=where)


def _check_placeholders(reply: ScriptedReply, known: set[str], *, where: str) -> None:
    for name in placeholders(msgspec.to_builtins(reply)):
        if name not in known:
            raise UsageError(
                f"{where}: nothing fills the placeholder {name!r}.",
                hint=f"Filled here: {', '.join(sorted(known))}.",
            )


@lru_cache(maxsize=1024)
def compiled(source: str, *, where: str = "script") -> Any:
    """The RE2 expression, compiled once.

    Raises:
        UsageError: when RE2 does not accept it.
    """
    re2: Any = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(source, options=options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise UsageError(
            f"{where}: {source!r} is not an RE2 expression: {reason}.",
            hint="RE2 has no lookaround and no backreferences.",
        ) from error


class View:
    """What conditions look at in a request."""

    def __init__(self, interaction: Interaction) -> None:
        messages = interaction.messages
        answered = [i for i, m in enumerate(messages) if m.role is Role.ASSISTANT]
        self.turn = len(answered) + 1
        self.last_user = _last_text(messages, Role.USER)
        self.system = "\n".join(m.text for m in messages if m.role is Role.SYSTEM)
        fresh = messages[answered[-1] + 1 :] if answered else messages
        results = [p for m in fresh for p in m.parts if isinstance(p, ToolResult)]
        self.has_tool_result = bool(results)
        self.tool_result = "\n".join(r.text for r in results)
        self.result_names = {r.name for r in results}
        self.offered = {t.name for t in interaction.tools}
        self.model = interaction.model
        self._messages = messages

    @property
    def all_text(self) -> str:
        """Every word of the conversation, tool results included."""
        results = (p.text for m in self._messages for p in m.parts if isinstance(p, ToolResult))
        return "\n".join([*(m.text for m in self._messages), *results])

    def variables(self) -> dict[str, Any]:
        """The variables every reply may use."""
        return {name: getattr(self, name) for name in FIXED_VARIABLES}


def _last_text(messages: tuple[Message, ...], role: Role) -> str:
    return next((m.text for m in reversed(messages) if m.role is role and m.text), "")


def matched(when: When, view: View) -> Mapping[str, Any] | None:
    """The variables of a request that meets the conditions; None when it does not."""
    if not (_facts_hold(when, view) and _words_hold(when, view)):
        return None
    variables = view.variables()
    for source, text in ((when.user_matches, view.last_user), (when.tool_result_matches, view.tool_result)):
        if source is None:
            continue
        found = compiled(source).search(text)
        if found is None:
            return None
        variables.update({k: v or "" for k, v in found.groupdict().items()})
    return variables


def _facts_hold(when: When, view: View) -> bool:
    return (
        when.turn in (None, view.turn)
        and when.model in (None, view.model)
        and when.has_tool_result in (None, view.has_tool_result)
        and (when.offers_tool is None or when.offers_tool in view.offered)
        and (when.tool_result_from is None or when.tool_result_from in view.result_names)
    )


def _words_hold(when: When, view: View) -> bool:
    wanted: tuple[tuple[str | None, Callable[[], str]], ...] = (
        (when.user_contains, lambda: view.last_user),
        (when.system_contains, lambda: view.system),
        (when.tool_result_contains, lambda: view.tool_result),
        (when.any_contains, lambda: view.all_text),
    )
    return all(w is None or w.casefold() in text().casefold() for w, text in wanted)
