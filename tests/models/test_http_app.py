"""Any HTTP application as a target: what is sent, where the answer is found, what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import answering, serving

from stanchion.core.errors import UnavailableError, UnknownNameError, UsageError
from stanchion.core.interaction import Document, Interaction, ToolCall, assistant, system, user
from stanchion.core.target import Target
from stanchion.models.http_app import HttpApp, HttpAppOptions, value_at
from stanchion.models.template import fill, placeholders

ASKED = Interaction(
    messages=(system("Be kind."), user("one"), assistant("two"), user("three {{ system }}")),
    documents=(Document(id="d1", text="words"),),
    session_id="s1",
)


async def answer(body: Any, **options: Any) -> Interaction:
    async with serving(answering(body=body)) as url:
        app = HttpApp(f"{url}/chat", options=HttpAppOptions(**options))
        try:
            return await app.invoke(ASKED)
        finally:
            await app.aclose()


async def test_the_template_is_filled_once_and_keeps_types() -> None:
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json(), request.headers["x-key"]))
        return web.json_response({"out": [{"text": "Hello."}]})

    body = {
        "q": "Q: {{ prompt }}",
        "history": "{{messages}}",
        "docs": "{{ documents }}",
        "session": "{{ session_id }}",
        "n": 3,
    }

    class Key:
        def reveal(self) -> str:
            return "hidden"

    async with serving(handle) as url:
        options = HttpAppOptions(body=body, answer="out.0.text")
        app = HttpApp(f"{url}/chat?sig=x", options=options, headers={"x-key": Key()})
        assert isinstance(app, Target)
        reply = (await app.invoke(ASKED)).reply
        await app.aclose()
    assert reply is not None
    assert reply.message.text == "Hello."
    [(sent, key)] = seen
    assert sent["q"] == "Q: three {{ system }}"  # what a user wrote is never filled in
    assert sent["history"][0] == {"role": "system", "content": "Be kind."}
    assert sent["docs"] == [{"id": "d1", "text": "words", "source": ""}]
    assert (sent["session"], sent["n"], key) == ("s1", 3, "hidden")
    assert "sig" not in app.id


async def test_tool_calls_are_found_in_both_shapes() -> None:
    body = {
        "text": None,
        "calls": [
            {"id": "c1", "function": {"name": "refund", "arguments": '{"id":7}'}},
            {"name": "send", "arguments": {"to": "x"}},
        ],
    }
    reply = (await answer(body, answer="text", calls="calls")).reply
    assert reply is not None
    assert reply.message.tool_calls == (
        ToolCall(id="c1", name="refund", arguments={"id": 7}),
        ToolCall(id="call_1", name="send", arguments={"to": "x"}),
    )


async def test_without_a_path_the_body_is_the_answer() -> None:
    async with serving(answering(body="plain words", content_type="text/plain")) as url:
        app = HttpApp(url)
        reply = (await app.invoke(ASKED)).reply
        await app.aclose()
    assert reply is not None
    assert reply.message.text == "plain words"
    with pytest.raises(UnavailableError, match="a web page"):
        await answer("<p>Sign in</p>")


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ({"a": {}}, "a.b", "no 'b' at a (dict)"),
        ({"a": [1]}, "a.1", "no '1' at a (a list of 1)"),
        ([], "x", "no 'x' at the top (a list of 0)"),
        ({"a": 1}, "a", "there is no text at 'a' of the answer, but int"),
        ("<html>login</html>", "a", "not JSON but an HTML page"),
    ],
)
async def test_an_answer_that_is_not_there_is_said_clearly(body: Any, path: str, says: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        await answer(body, answer=path)
    assert says in caught.value.message
    assert caught.value.hint
    assert not caught.value.is_retryable


def test_a_placeholder_that_nothing_fills_is_refused_at_once() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'prompt'"):
        HttpApp("http://x/chat", options=HttpAppOptions(body={"q": ["{{ promt }}"]}))
    with pytest.raises(UsageError, match="not an http"):
        HttpApp("chat")


@given(st.text(max_size=40), st.text(max_size=10))
@settings(deadline=None, max_examples=200)
def test_filling_never_evaluates_and_never_looks_twice(value: str, around: str) -> None:
    template = {"a": "{{ x }}", "b": [f"{around}|{{{{ x }}}}|"]}
    if "{{" in around:
        return
    assert fill(template, {"x": value}) == {"a": value, "b": [f"{around}|{value}|"]}
    assert list(placeholders(template)) == ["x", "x"]


def test_whole_placeholders_keep_their_type_and_code_is_only_text() -> None:
    assert fill("{{ n }}", {"n": [1, None]}) == [1, None]
    assert fill("n={{ n }}", {"n": [1, None]}) == "n=[1,null]"
    code = "{{ x.__class__ }} {% for %} {{ 1+1 }} ${env:HOME}"
    with pytest.raises(UnknownNameError):
        fill(code, {"x": 1})
    assert fill("{{ 1+1 }} {% x %}", {}) == "{{ 1+1 }} {% x %}"


def test_paths_go_through_objects_and_lists() -> None:
    assert value_at({"a": [1]}, "a.0") == 1
    assert value_at({"a": [1]}, "a") == [1]
    assert value_at({"choices": [{"message": {"content": "x"}}]}, "choices.0.message.content") == "x"
