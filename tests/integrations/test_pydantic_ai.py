# ruff: noqa: E402
"""Real PydanticAI agents with a function for a model, under our capability."""

from __future__ import annotations

import pytest
from frameworks import ATTACK, LEAK, MINE, REDACTED, abroken, needed

needed("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from stanchion.core.errors import UsageError
from stanchion.integrations.pydantic_ai_guard import guarded_model, make_capability

pytestmark = pytest.mark.filterwarnings("ignore")  # the warnings of other people's packages


class Script:
    """A model that gives its answers in turn; a text `echo` gives back the last words."""

    def __init__(self, *answers):
        self.answers, self.asked = answers, []

    def _next(self, messages):
        self.asked.append(messages)
        said = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if said == "echo":
            said = str(messages[-1].parts[-1].content)
        return TextPart(said) if isinstance(said, str) else said

    def whole(self, messages, info):
        return ModelResponse(parts=[self._next(messages)])

    async def stream(self, messages, info):
        said = self._next(messages)
        if isinstance(said, ToolCallPart):
            yield {0: DeltaToolCall(name=said.tool_name, json_args='{"city":', tool_call_id="c1")}
            yield {0: DeltaToolCall(json_args='"Bern"}')}
            return
        for start in range(0, len(said.content), 5):
            yield said.content[start : start + 5]

    @property
    def model(self):
        return FunctionModel(self.whole, stream_function=self.stream)


@pytest.fixture
def agent(guard, events):
    def make(script, **options):
        capability = make_capability(guard, on_decision=events.append)
        return Agent(script.model, capabilities=[capability], instructions="Be brief.", **options)

    return make


async def run(agent, text, *, stream):
    if not stream:
        return (await agent.run(text)).output, ""
    async with agent.run_stream(text) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        return await result.get_output(), "".join(pieces)


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_are_refused_rewritten_and_leaks_redacted(agent, events, stream):
    script = Script("never")
    output, _ = await run(agent(script), ATTACK, stream=stream)
    assert events[0].reference in output
    assert script.asked == []
    script = Script("echo")
    output, shown = await run(agent(script), MINE, stream=stream)
    assert output == MINE
    assert shown in ("", MINE)
    assert "5555" not in str(script.asked)
    output, shown = await run(agent(Script(LEAK)), "Which card?", stream=stream)
    assert output == REDACTED
    assert shown in ("", REDACTED)
    assert {event.guarantee for event in events if "stream" in event.hook and event.is_allowed} == (
        {"no-leak"} if stream else set()
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_with_what_was_checked_and_their_results_are_checked(agent, events, stream):
    script = Script(ToolCallPart("weather", '{"city":"Bern"}', "c1"), "Done.")
    made, called = agent(script), []

    @made.tool_plain
    def weather(city: str) -> str:
        called.append(city)
        return "The station's card is 4111 1111 1111 1111."

    output, _ = await run(made, "Weather?", stream=stream)
    assert (output, called) == ("Done.", ["Bern"])
    assert "The station's card is [CARD]." in str(script.asked)
    assert "4111" not in str(script.asked)
    hooks = [event.hook for event in events]
    assert hooks.count("tool call") == hooks.count("tool result") == 1


async def test_a_tool_that_cannot_be_checked_is_not_called(agent, guard, events, monkeypatch):
    monkeypatch.setattr(guard, "acheck_tool_call", abroken)
    made, called = agent(Script(ToolCallPart("act", "{}", "c1"), "Done.")), []

    @made.tool_plain
    def act() -> str:
        called.append(1)
        return "done"

    await made.run("Act.")
    assert called == []
    assert "RuntimeError" in [event.error for event in events]


@pytest.mark.parametrize(("method", "asked"), [("aprepare", 0), ("afinish", 1)])
async def test_a_check_that_breaks_ends_the_run(agent, guard, events, monkeypatch, method, asked):
    monkeypatch.setattr(guard, method, abroken)
    script = Script(LEAK)
    with pytest.raises(RuntimeError):
        await agent(script).run("Which card?")
    assert len(script.asked) == asked
    assert events[-1].error == "RuntimeError"


async def test_a_stream_whose_check_breaks_ends_in_the_error(agent, events, monkeypatch):
    from stanchion.guard.streaming import StreamGuard

    monkeypatch.setattr(StreamGuard, "_fed_text", abroken)
    with pytest.raises(RuntimeError):
        await run(agent(Script(LEAK)), "Which card?", stream=True)
    assert events[-1].error == "RuntimeError"


async def test_batches_are_refused(guard):
    model = guarded_model(Script("x").model, guard)
    with pytest.raises(UsageError, match="batches are not guarded"):
        await model.batch_encode(None)
