"""Guardrails for the OpenAI Agents SDK: input, output, tool calls and tool results.

rails = make_guardrails(Guard.load())
agent = Agent("helper", input_guardrails=[rails.input], output_guardrails=[rails.output], tools=[...])

A guardrail of this SDK can stop and cannot rewrite, so what would have to be rewritten is stopped; only tool
results are replaced. Its output guardrail runs when a stream is over, so give the agents a guarded client
(`clients.guarded(AsyncOpenAI(), guard)`) when answers are streamed or values have to come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from stanchion.core.decision import Decision
from stanchion.guard.pipeline import Guard
from stanchion.integrations.foreign import load
from stanchion.integrations.recording import Recorder, Recording
from stanchion.models.events import tool_call
from stanchion.models.openai_responses import decode_request

Rewrites = Literal["stop", "client"]
_CHANGED = "Its arguments hold what may not be passed on."


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrails:
    """One of each kind, for `Agent` and `function_tool`."""

    input: Any
    output: Any
    tool_input: Any
    tool_output: Any


class _Checks:
    """The functions behind the guardrails."""

    def __init__(self, guard: Guard, recording: Recording, rewrites: Rewrites, agents: Any) -> None:
        self._guard, self._recording, self._rewrites, self._sdk = guard, recording, rewrites, agents

    async def read_input(self, context: Any, agent: Any, given: Any) -> Any:
        """Check everything that the agent was given, with its instructions."""
        try:
            items = [{"role": "user", "content": given}] if isinstance(given, str) else given
            instructions = agent.instructions if isinstance(agent.instructions, str) else None
            body = {"model": "agent", "input": _plain(items), "instructions": instructions}
            prepared = await self._guard.aprepare(decode_request(body).interaction)
        except Exception as error:
            self._recording.broke("input", error)
            raise
        is_allowed = prepared.blocked is None and (prepared.is_unchanged or self._rewrites == "client")
        self._recording.note("input", prepared.decisions, is_allowed=is_allowed)
        return self._sdk.GuardrailFunctionOutput(
            output_info=_told(
                prepared.decisions, None if prepared.blocked is None else prepared.blocked.message.text
            ),
            tripwire_triggered=not is_allowed,
        )

    async def read_output(self, context: Any, agent: Any, output: Any) -> Any:
        """Check the final answer."""
        try:
            text = output if isinstance(output, str) else msgspec.json.encode(_plain(output)).decode()
            checked = await self._guard.acheck(text, surface="output")
        except Exception as error:
            self._recording.broke("output", error)
            raise
        is_allowed = checked.allowed and checked.text == text
        self._recording.note("output", [checked.decision], is_allowed=is_allowed)
        return self._sdk.GuardrailFunctionOutput(
            output_info=_told([checked.decision], checked.text), tripwire_triggered=not is_allowed
        )

    async def read_call(self, data: Any) -> Any:
        """Check a tool call before it is made; the model reads why it was not."""
        context = data.context
        answers = self._sdk.ToolGuardrailFunctionOutput
        try:
            call = tool_call(
                id=context.tool_call_id, name=context.tool_name, raw_arguments=context.tool_arguments
            )
            checked = await self._guard.acheck_tool_call(call)
        except Exception as error:
            self._recording.broke("tool call", error)
            raise
        is_changed = checked.allowed and checked.call != call
        self._recording.note("tool call", [checked.decision], is_allowed=checked.allowed and not is_changed)
        told = _told([checked.decision], None)
        if checked.allowed and not is_changed:
            return answers.allow(output_info=told)
        return answers.reject_content(checked.denial or _CHANGED, output_info=told)

    async def read_result(self, data: Any) -> Any:
        """Check what a tool gave; what may be read of it takes its place."""
        answers = self._sdk.ToolGuardrailFunctionOutput
        try:
            value = _plain(data.output)
            checked = await self._guard.acheck_tool_result(value)
        except Exception as error:
            self._recording.broke("tool result", error)
            raise
        self._recording.note("tool result", [checked.decision], is_allowed=checked.allowed)
        told = _told([checked.decision], None)
        if checked.allowed and checked.value == value:
            return answers.allow(output_info=told)
        shown = (
            checked.value if isinstance(checked.value, str) else msgspec.json.encode(checked.value).decode()
        )
        return answers.reject_content(shown, output_info=told)


def _plain(value: Any) -> Any:
    """A value of the SDK as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else msgspec.to_builtins(value)


def _told(decisions: Any, said: str | None) -> dict[str, Any]:
    """What a guardrail's result tells, without a word of what was checked."""
    held: Decision | None = max(decisions, key=lambda one: one.enforced_effect.rank, default=None)
    if held is None:
        return {}
    return {
        "reference": held.reference,
        "effect": held.enforced_effect.value,
        "rules": list(held.rule_ids),
        **({"say": said} if said else {}),
    }


def make_guardrails(
    guard: Guard, *, rewrites: Rewrites = "stop", on_decision: Recorder | None = None
) -> Guardrails:
    """The guardrails of the Agents SDK, before the agent runs and not beside it.

    Args:
        guard: decides.
        rewrites: what becomes of an input that has to be rewritten: `stop`, or `client` when the agent's
            model is asked through a guarded client, which rewrites it.
        on_decision: hears of every decision (default: the log).

    Raises:
        UsageError: without the package `openai-agents`.
    """
    agents = load("agents", package="openai-agents", what="the guardrails of the Agents SDK")
    checks = _Checks(guard, Recording("openai agents", on_decision), rewrites, agents)
    return Guardrails(
        input=agents.InputGuardrail(
            guardrail_function=checks.read_input, name="stanchion_input", run_in_parallel=False
        ),
        output=agents.OutputGuardrail(guardrail_function=checks.read_output, name="stanchion_output"),
        tool_input=agents.ToolInputGuardrail(guardrail_function=checks.read_call, name="stanchion_tool_call"),
        tool_output=agents.ToolOutputGuardrail(
            guardrail_function=checks.read_result, name="stanchion_tool_result"
        ),
    )
