# ruff: noqa: E402
"""Real agents of the OpenAI Agents SDK against a vendor on loopback, with our guardrails."""

from __future__ import annotations

import pytest
from frameworks import ATTACK, MINE, REDACTED, abroken, needed

agents = needed("agents")

import openai

from stanchion.integrations.agents_sdk import make_guardrails
from stanchion.integrations.clients import guarded

pytestmark = pytest.mark.filterwarnings("ignore")  # the warnings of other people's packages

agents.set_tracing_disabled(True)


@pytest.fixture
def rails(guard, events):
    return make_guardrails(guard, on_decision=events.append)


@pytest.fixture
def agent(vendor, rails):
    def make(client=None, **options):
        client = client or openai.AsyncOpenAI(api_key="k", base_url=f"{vendor.url}/v1", max_retries=0)
        model = agents.OpenAIChatCompletionsModel(model="m", openai_client=client)
        rules = {"input_guardrails": [rails.input], "output_guardrails": [rails.output], **options}
        return agents.Agent("helper", model=model, instructions="Be brief.", **rules)

    return make


async def test_a_refused_input_stops_the_run_before_the_model_is_asked(agent, vendor, events):
    with pytest.raises(agents.InputGuardrailTripwireTriggered) as caught:
        await agents.Runner.run(agent(), ATTACK)
    assert vendor.bodies == []
    told = caught.value.guardrail_result.output.output_info
    assert told["effect"] == "replace"
    assert told["reference"] in told["say"]
    assert not events[0].is_allowed


async def test_a_harmless_run_goes_through_and_a_leak_is_stopped(agent, vendor, events):
    done = await agents.Runner.run(agent(), "How do I return it?")
    assert "30 days" in done.final_output
    assert [event.hook for event in events] == ["input", "output"]
    with pytest.raises(agents.OutputGuardrailTripwireTriggered):
        await agents.Runner.run(agent(), "[card]")


async def test_what_has_to_be_rewritten_is_stopped_unless_the_client_is_guarded(agent, vendor, guard, events):
    with pytest.raises(agents.InputGuardrailTripwireTriggered):
        await agents.Runner.run(agent(), MINE)
    assert vendor.bodies == []
    client = guarded(openai.AsyncOpenAI(api_key="k", base_url=f"{vendor.url}/v1"), guard)
    rails = make_guardrails(guard, rewrites="client", on_decision=events.append)
    made = agent(client, input_guardrails=[rails.input], output_guardrails=[])
    done = await agents.Runner.run(made, f"[echo] {MINE}")
    assert done.final_output == MINE
    assert "5555" not in vendor.asked


async def test_streams_are_guarded_by_the_client(agent, vendor, guard):
    client = guarded(openai.AsyncOpenAI(api_key="k", base_url=f"{vendor.url}/v1"), guard)
    run = agents.Runner.run_streamed(agent(client), "[card]")
    seen = str([event async for event in run.stream_events()])
    assert "4111" not in seen
    assert run.final_output == REDACTED


async def test_tool_calls_and_results_are_checked(agent, vendor, rails, events, guard, monkeypatch):
    called = []

    @agents.function_tool(
        tool_input_guardrails=[rails.tool_input], tool_output_guardrails=[rails.tool_output]
    )
    def weather(city: str) -> str:
        """The weather."""
        called.append(city)
        return "Sunny. The station's card is 4111 1111 1111 1111."

    await agents.Runner.run(agent(tools=[weather]), "[weather]")
    assert called == ["Bern"]
    assert "4111" not in vendor.asked
    assert "The station's card is [CARD]" in vendor.asked
    assert [event.hook for event in events if event.hook.startswith("tool")] == ["tool call", "tool result"]
    monkeypatch.setattr(guard, "acheck_tool_call", abroken)
    with pytest.raises(Exception, match=r"guardrail|words of the user"):
        await agents.Runner.run(agent(tools=[weather]), "[weather]")
    assert called == ["Bern"], "a call that cannot be checked is not made"


@pytest.mark.parametrize("method", ["aprepare", "acheck"])
async def test_a_check_that_breaks_ends_the_run(agent, guard, events, monkeypatch, method):
    monkeypatch.setattr(guard, method, abroken)
    with pytest.raises(Exception, match="words of the user"):
        await agents.Runner.run(agent(), "Hello")
    assert "RuntimeError" in [event.error for event in events]
