# ruff: noqa: E402
"""The guardrail under real LiteLLM: calls of its SDK to a vendor on loopback, hooks of its proxy."""

from __future__ import annotations

import pytest
from frameworks import ATTACK, LEAK, MINE, REDACTED, abroken, needed

litellm = needed("litellm")

from litellm.exceptions import RejectedRequestError
from litellm.integrations.custom_guardrail import CustomGuardrail, ModifyResponseException
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import ModelResponse, ModelResponseStream

from stanchion.integrations.litellm_guardrail import NotGuarded, make_guardrail

pytestmark = pytest.mark.filterwarnings("ignore")  # the warnings of other people's packages


@pytest.fixture
def rail(guard, events):
    return make_guardrail(guard, on_decision=events.append)


@pytest.fixture
def called(vendor, rail, monkeypatch):
    """LiteLLM's own call with the guardrail among its callbacks."""
    monkeypatch.setattr(litellm, "callbacks", [rail])

    async def call(text, **options):
        return await litellm.acompletion(
            model="openai/m",
            api_base=f"{vendor.url}/v1",
            api_key="k",
            messages=[{"role": "user", "content": text}],
            guardrails=["stanchion"],
            num_retries=0,
            **options,
        )

    return call


def asked(text, **more):
    return {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "litellm_call_id": "call-1",
        "proxy_server_request": {},
        **more,
    }


async def pre(rail, data, call_type="acompletion"):
    return await rail.async_pre_call_hook(None, None, data, call_type)


def answer(text):
    message = {"role": "assistant", "content": text}
    return ModelResponse(
        id="a1", model="m", choices=[{"index": 0, "finish_reason": "stop", "message": message}]
    )


async def chunks(text):
    for start in range(0, len(text), 6):
        delta = {"role": "assistant", "content": text[start : start + 6]}
        yield ModelResponseStream(id="a1", model="m", choices=[{"index": 0, "delta": delta}])
    yield ModelResponseStream(
        id="a1", model="m", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]
    )


async def streamed(rail, data, pieces):
    return [piece async for piece in rail.async_post_call_streaming_iterator_hook(None, pieces, data)]


def words(pieces):
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def test_it_is_a_guardrail_that_is_on_for_everybody(rail):
    assert isinstance(rail, CustomGuardrail)
    for hook in (GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call):
        assert rail.should_run_guardrail(asked("x"), hook)


def test_the_class_itself_has_every_hook_because_the_proxy_looks_nowhere_else(rail):
    """`ProxyLogging.callback_capabilities` reads `type(callback).__dict__`; streams went by unguarded."""
    for hook in (
        "async_pre_call_hook",
        "async_moderation_hook",
        "async_post_call_success_hook",
        "async_post_call_streaming_iterator_hook",
    ):
        assert hook in type(rail).__dict__


async def test_calls_of_the_sdk_are_guarded_on_the_wire(called, vendor, events):
    done = await called(f"[echo] {MINE}")
    assert done.choices[0].message.content == MINE
    assert "5555" not in vendor.asked
    assert (await called("[card]")).choices[0].message.content == REDACTED
    count = len(vendor.bodies)
    with pytest.raises((ModifyResponseException, RejectedRequestError)):
        await called(ATTACK)
    assert len(vendor.bodies) == count
    assert {event.hook for event in events} == {"pre_call", "post_call"}


async def test_a_stream_of_the_sdk_meets_no_hook_and_is_refused(called, vendor):
    with pytest.raises(Exception, match="nothing of a stream"):
        await called("Hello", stream=True)
    assert vendor.bodies == []


async def test_the_proxy_gets_the_safe_completion_for_what_is_refused(rail, events):
    with pytest.raises(ModifyResponseException) as caught:
        await pre(rail, asked(ATTACK))
    assert events[0].reference in caught.value.message
    with pytest.raises(ModifyResponseException):
        await rail.async_moderation_hook(asked(ATTACK), None, "acompletion")


async def test_a_request_and_its_answer_are_rewritten_and_values_come_back(rail):
    data = await pre(rail, asked(MINE, temperature=0.5, metadata={"a": 1}))
    assert "5555" not in str(data)
    assert (data["temperature"], data["metadata"]) == (0.5, {"a": 1})
    token = data["messages"][0]["content"].removeprefix("Is my card ").removesuffix(" still valid?")
    shown = await rail.async_post_call_success_hook(data, None, answer(f"{token} is valid. {LEAK}"))
    assert isinstance(shown, ModelResponse)
    assert shown.choices[0].message.content == f"5555 5555 5555 4444 is valid. {REDACTED}"


async def test_an_answer_that_is_fine_is_the_very_same(rail):
    data = await pre(rail, asked("Hello"))
    said = answer("Hello!")
    assert await rail.async_post_call_success_hook(data, None, said) is said


async def test_streams_of_the_proxy_are_released_by_the_guard(rail, events):
    data = await pre(rail, asked(MINE, stream=True))
    token = data["messages"][0]["content"].removeprefix("Is my card ").removesuffix(" still valid?")
    shown = await streamed(rail, data, chunks(f"{token} is valid. {LEAK}"))
    assert words(shown) == f"5555 5555 5555 4444 is valid. {REDACTED}"
    assert all(isinstance(piece, ModelResponseStream) for piece in shown)
    assert (events[-1].hook, events[-1].guarantee) == ("stream", "no-leak")


async def test_streams_of_messages_are_released_by_the_guard(rail, guard):
    data = {**asked("Which card?", stream=True), "max_tokens": 9}
    data = await pre(rail, data, "anthropic_messages")
    from stanchion.core.interaction import Reply, assistant
    from stanchion.models.events import events_of
    from stanchion.models.surfaces import SURFACES

    codec = SURFACES["anthropic.messages"]
    encoder = codec.stream_encoder(asked=codec.decode_request({**data}), response_id="m1", created=0)

    async def frames():
        for event in events_of(Reply(message=assistant(LEAK)), chunk_chars=5):
            for frame in encoder.feed(event):
                yield frame

    shown = b"".join(await streamed(rail, data, frames())).decode()
    assert "4111" not in shown
    assert "[CARD]" in shown
    assert shown.rstrip().endswith('{"type":"message_stop"}')


async def test_answers_are_guarded_though_their_requests_were_not(rail):
    assert words(await streamed(rail, asked("Which card?"), chunks(LEAK))) == REDACTED
    shown = await rail.async_post_call_success_hook(asked("Which card?"), None, answer(LEAK))
    assert shown.choices[0].message.content == REDACTED


@pytest.mark.parametrize("call_type", ["image_generation", "atext_completion", "_arealtime", "new_thing"])
async def test_calls_that_no_hook_can_guard_are_refused(rail, call_type):
    with pytest.raises(NotGuarded, match="no guard reads"):
        await pre(rail, asked("x"), call_type)
    with pytest.raises(NotGuarded):
        await pre(rail, {"model": "m", "input": "x", "stream": True}, "aresponses")


async def test_beside_the_call_nothing_can_be_rewritten(rail):
    with pytest.raises(NotGuarded, match="would have to be rewritten"):
        await rail.async_moderation_hook(asked(MINE), None, "acompletion")
    await rail.async_moderation_hook(asked("Hello"), None, "acompletion")


async def test_embeddings_are_checked_as_they_are_asked(rail):
    with pytest.raises(ModifyResponseException):
        await pre(rail, {"model": "m", "input": ATTACK}, "aembedding")
    data = await pre(rail, {"model": "m", "input": ["my card is 5555 5555 5555 4444"]}, "aembedding")
    assert "5555" not in str(data["input"])


@pytest.mark.parametrize("method", ["aprepare", "afinish"])
async def test_a_check_that_breaks_gives_nothing(called, vendor, guard, events, monkeypatch, method):
    monkeypatch.setattr(guard, method, abroken)
    with pytest.raises(Exception, match=r".") as caught:
        await called("[card]")
    assert "4111" not in str(caught.value)
    assert len(vendor.bodies) == (method == "afinish")
    assert "RuntimeError" in [event.error for event in events]


async def test_a_stream_that_breaks_off_ends_in_an_error(rail):
    async def torn():
        async for piece in chunks("Hello there, this is fine."):
            if piece.choices[0].finish_reason is None:
                yield piece

    with pytest.raises(Exception, match="broke off"):
        await streamed(rail, await pre(rail, asked("Hello", stream=True)), torn())
