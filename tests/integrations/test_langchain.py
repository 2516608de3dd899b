# ruff: noqa: E402
"""A real LangChain agent with a scripted chat model, under the middleware."""

from __future__ import annotations

from typing import Any

import pytest
from frameworks import ATTACK, LEAK, MINE, REDACTED, abroken, broken, needed

needed("langchain.agents")

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool

from stanchion.integrations.langchain_middleware import make_middleware

pytestmark = pytest.mark.filterwarnings("ignore")  # the warnings of other people's packages


class Scripted(BaseChatModel):
    """Says what it is told to, and streams it word by word when it may."""

    answers: list[Any]
    asked: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools, **kwargs):
        return self

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.asked.append(messages)
        said = self.answers[min(len(self.asked), len(self.answers)) - 1]
        said = AIMessage(content=said) if isinstance(said, str) else said
        return ChatResult(generations=[ChatGeneration(message=said)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        message = self._generate(messages).generations[0].message
        for word in message.content.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))


def sent(model: Scripted) -> str:
    return " ".join(str(message.content) for messages in model.asked for message in messages)


@tool
def charge(card: str) -> str:
    """Charge a card."""
    return f"charged {card}"


@tool
def read_page() -> str:
    """Read a page."""
    return "The owner's card is 4111 1111 1111 1111."


def call(name: str, **arguments: Any) -> AIMessage:
    return AIMessage(content="", tool_calls=[{"id": "c1", "name": name, "args": arguments}])


@pytest.fixture
def agent(guard, events):
    def make(*answers, tools=()):
        model = Scripted(answers=list(answers), asked=[])
        middleware = make_middleware(guard, on_decision=events.append)
        return model, create_agent(model, list(tools), middleware=[middleware], system_prompt="Be brief.")

    return make


def user(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_a_refused_request_never_reaches_the_model(agent, events):
    model, made = agent("never")
    last = made.invoke(user(ATTACK))["messages"][-1]
    assert model.asked == []
    assert last.response_metadata["finish_reason"] == "content_filter"
    assert last.response_metadata["stanchion_reference"] in last.content
    assert [(event.hook, event.is_allowed) for event in events] == [("model request", False)]


async def test_values_are_borrowed_and_leaks_are_redacted(agent, events):
    model, made = agent("Your card 5555 is fine.")
    await made.ainvoke(user(MINE))
    assert "5555" not in sent(model)
    assert "<CARD_1_" in sent(model)
    model, made = agent(LEAK)
    assert (await made.ainvoke(user("Which card?")))["messages"][-1].content == REDACTED
    assert made.invoke(user("Which card?"))["messages"][-1].content == REDACTED


def test_a_borrowed_value_comes_back_in_the_answer_and_in_the_call_of_a_tool(guard, events):
    class Echo(Scripted):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            self.asked.append(messages)
            token = messages[-1].text.split("card ")[-1].split(" still")[0]
            said = call("charge", card=token) if len(self.asked) == 1 else AIMessage(content="Done.")
            return ChatResult(generations=[ChatGeneration(message=said)])

    model = Echo(answers=[], asked=[])
    made = create_agent(model, [charge], middleware=[make_middleware(guard, on_decision=events.append)])
    messages = made.invoke(user(MINE))["messages"]
    assert messages[1].tool_calls[0]["args"] == {"card": "5555 5555 5555 4444"}
    assert "5555" not in sent(model)


def test_the_result_of_a_tool_is_checked_before_the_model_reads_it(agent, events):
    model, made = agent(call("read_page"), "Done.", tools=[read_page])
    messages = made.invoke(user("Read the page."))["messages"]
    assert "4111" not in sent(model)
    assert messages[-2].content == "The owner's card is [CARD]."
    assert [event.hook for event in events if event.hook.startswith("tool")] == ["tool call", "tool result"]


@pytest.mark.parametrize("mode", ["messages", "updates", "values"])
def test_no_stream_shows_what_was_not_checked(agent, mode):
    _, made = agent(LEAK)
    shown = str(list(made.stream(user("Which card?"), stream_mode=mode)))
    assert "4111" not in shown
    assert "[CARD]" in shown


async def test_no_asynchronous_stream_shows_what_was_not_checked(agent):
    _, made = agent(LEAK)
    shown = str(
        [piece async for piece in made.astream(user("Which card?"), stream_mode=["messages", "updates"])]
    )
    assert "4111" not in shown
    assert "[CARD]" in shown


@pytest.mark.parametrize(("method", "asked"), [("prepare", 0), ("finish", 1)])
def test_a_check_that_breaks_ends_the_run(agent, guard, events, monkeypatch, method, asked):
    monkeypatch.setattr(guard, method, broken)
    model, made = agent(LEAK)
    with pytest.raises(RuntimeError):
        made.invoke(user("Which card?"))
    assert len(model.asked) == asked
    assert events[-1].error == "RuntimeError"


def test_a_tool_that_cannot_be_checked_is_not_called(agent, guard, events, monkeypatch):
    monkeypatch.setattr(guard, "check_tool_call", broken)
    called = []

    @tool
    def act() -> str:
        """Act."""
        called.append(1)
        return "done"

    _, made = agent(call("act"), "Done.", tools=[act])
    messages = made.invoke(user("Act."))["messages"]
    assert called == []
    assert messages[-2].status == "error"
    assert events[-3].error == "RuntimeError" or "RuntimeError" in [event.error for event in events]


async def test_the_asynchronous_twin_fails_closed_too(agent, guard, monkeypatch):
    monkeypatch.setattr(guard, "aprepare", abroken)
    model, made = agent(LEAK)
    with pytest.raises(RuntimeError):
        await made.ainvoke(user("Which card?"))
    assert model.asked == []
