# ruff: noqa: E402
"""A real kernel of Semantic Kernel with a scripted chat service, under our filters."""

from __future__ import annotations

import pytest
from frameworks import ATTACK, LEAK, MINE, REDACTED, abroken, needed

needed("semantic_kernel")

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatMessageContent, StreamingChatMessageContent
from semantic_kernel.functions import KernelArguments, kernel_function

from stanchion.integrations.semantic_kernel_filters import add_filters

pytestmark = pytest.mark.filterwarnings("ignore")  # the warnings of other people's packages


class Scripted(ChatCompletionClientBase):
    """Says one answer, or gives back what it was asked."""

    answer: str
    asked: list[str]

    def _said(self, history):
        self.asked.append(" ".join(str(message) for message in history.messages))
        return str(history.messages[-1]) if self.answer == "echo" else self.answer

    async def _inner_get_chat_message_contents(self, chat_history, settings):
        return [ChatMessageContent(role="assistant", content=self._said(chat_history))]

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history, settings, function_invoke_attempt=0
    ):
        said = self._said(chat_history)
        for start in range(0, len(said), 5):
            yield [
                StreamingChatMessageContent(role="assistant", choice_index=0, content=said[start : start + 5])
            ]

    def get_prompt_execution_settings_class(self):
        return PromptExecutionSettings


class Tools:
    def __init__(self):
        self.called = []

    @kernel_function
    def page(self, name: str) -> str:
        """Read a page."""
        self.called.append(name)
        return "The owner's card is 4111 1111 1111 1111."


@pytest.fixture
def kernel(guard, events):
    def make(answer):
        service = Scripted(ai_model_id="m", service_id="s", answer=answer, asked=[])
        made = Kernel(services=[service])
        add_filters(made, guard, on_decision=events.append)
        return made, service

    return make


async def ask(kernel, text, *, stream):
    arguments = KernelArguments(text=text)
    if not stream:
        return str(await kernel.invoke_prompt("{{$text}}", arguments=arguments))
    pieces = [piece async for piece in kernel.invoke_prompt_stream("{{$text}}", arguments=arguments)]
    return "".join(str(each[0] if isinstance(each, list) else each) for each in pieces)


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_are_refused_rewritten_and_answers_redacted(kernel, events, stream):
    made, service = kernel("never")
    said = await ask(made, ATTACK, stream=stream)
    assert events[0].reference in said
    assert service.asked == []
    made, service = kernel("echo")
    assert await ask(made, MINE, stream=stream) == MINE
    assert "5555" not in str(service.asked)
    made, service = kernel(LEAK)
    assert await ask(made, "Which card?", stream=stream) == REDACTED
    assert events[-1].hook == ("stream" if stream else "answer")


async def test_functions_are_checked_before_and_after(kernel, events, guard, monkeypatch):
    made, _ = kernel("x")
    tools = Tools()
    made.add_plugin(tools, "tools")
    result = await made.invoke(plugin_name="tools", function_name="page", name="home")
    assert str(result) == "The owner's card is [CARD]."
    assert tools.called == ["home"]
    assert [event.hook for event in events] == ["function call", "function result"]
    monkeypatch.setattr(guard, "acheck_tool_call", abroken)
    with pytest.raises(Exception, match=r"RuntimeError|words of the user|invoking"):
        await made.invoke(plugin_name="tools", function_name="page", name="home")
    assert tools.called == ["home"]


@pytest.mark.parametrize(("method", "asked"), [("aprepare", 0), ("afinish", 1)])
async def test_a_check_that_breaks_gives_no_answer(kernel, guard, events, monkeypatch, method, asked):
    monkeypatch.setattr(guard, method, abroken)
    made, service = kernel(LEAK)
    with pytest.raises(Exception, match=r".") as caught:
        await ask(made, "Which card?", stream=False)
    assert "4111" not in str(caught.value)
    assert len(service.asked) == asked
    assert events[-1].error == "RuntimeError"
