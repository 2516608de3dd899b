"""Every event, delta, block, item and field that the vendors' clients know has a rule."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from anthropic.types import RawContentBlockDelta, RawMessageStreamEvent
from anthropic.types.raw_content_block_start_event import ContentBlock
from openai.types.chat.chat_completion_chunk import ChatCompletionChunk, Choice, ChoiceDelta
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent

from stanchion.core.interaction import UnknownEvent
from stanchion.models import event_rules
from stanchion.models.anthropic_answers import EventDecoder
from stanchion.models.event_rules import Rule
from stanchion.models.openai_answers import ChunkDecoder
from stanchion.models.openai_responses_answers import ResponseDecoder


def types_of(union: Any) -> Iterator[str]:
    """The values of `type` in a union of models, discriminated or not."""
    inner = typing.get_args(union)
    members = typing.get_args(inner[0]) if typing.get_origin(union) is typing.Annotated else inner
    for member in members:
        if hasattr(member, "model_fields"):
            yield from typing.get_args(member.model_fields["type"].annotation)
        else:
            yield from types_of(member)


def known(models: Any) -> set[str]:
    return set(types_of(models)) if not hasattr(models, "model_fields") else set(models.model_fields)


TABLES = [
    (event_rules.RESPONSES_EVENTS, ResponseStreamEvent),
    (event_rules.RESPONSES_ITEMS, ResponseOutputItem),
    (event_rules.CHAT_CHUNK, ChatCompletionChunk),
    (event_rules.CHAT_CHOICE, Choice),
    (event_rules.CHAT_DELTA, ChoiceDelta),
    (event_rules.MESSAGES_EVENTS, RawMessageStreamEvent),
    (event_rules.MESSAGES_DELTAS, RawContentBlockDelta),
    (event_rules.MESSAGES_BLOCKS, ContentBlock),
]


@pytest.mark.parametrize(("table", "models"), TABLES)
def test_every_type_that_the_installed_client_knows_has_a_rule(
    table: Mapping[str, Rule], models: Any
) -> None:
    names = known(models)
    assert len(names) >= 4
    missing = sorted(names - set(table))
    assert not missing, f"no rule for {missing}: add them to models/event_rules.py"


def test_the_enumeration_finds_a_type_without_a_rule() -> None:
    """The test above can fail: without one of its rules it does."""
    table = dict(event_rules.RESPONSES_EVENTS)
    del table["response.refusal.delta"]
    assert set(types_of(ResponseStreamEvent)) - set(table) == {"response.refusal.delta"}


@pytest.mark.parametrize(
    "kind", [kind for kind, rule in event_rules.RESPONSES_EVENTS.items() if rule is not Rule.UNDERSTOOD]
)
def test_responses_events_are_treated_as_their_rule_says(kind: str) -> None:
    events = ResponseDecoder().feed({"type": kind, "output_index": 0, "item_id": "i"})
    is_unknown = event_rules.RESPONSES_EVENTS[kind] is Rule.UNKNOWN
    assert [type(event) for event in events] == ([UnknownEvent] if is_unknown else [])


def test_understood_responses_events_have_a_handler() -> None:
    understood = {k for k, rule in event_rules.RESPONSES_EVENTS.items() if rule is Rule.UNDERSTOOD}
    assert understood == set(ResponseDecoder()._handlers)


@pytest.mark.parametrize(
    ("kind", "rule"), [(k, r) for k, r in event_rules.RESPONSES_ITEMS.items() if r is Rule.UNKNOWN]
)
def test_responses_items_that_are_not_understood_are_handed_on(kind: str, rule: Rule) -> None:
    item = {"type": kind, "id": "i"}
    decoder = ResponseDecoder()
    assert decoder.feed({"type": "response.output_item.added", "output_index": 0, "item": item}) == []
    [event] = decoder.feed({"type": "response.output_item.done", "output_index": 0, "item": item})
    assert event == UnknownEvent(kind=f"openai.responses:{kind}", payload=item)


@pytest.mark.parametrize(
    "field", [k for k, rule in event_rules.CHAT_DELTA.items() if rule is Rule.UNKNOWN] + ["new_field"]
)
def test_chat_deltas_that_are_not_understood_are_handed_on(field: str) -> None:
    [event] = ChunkDecoder().feed({"choices": [{"index": 0, "delta": {field: {"x": 1}}}]})
    assert event == UnknownEvent(kind=f"openai:delta.{field}", payload={"x": 1})


@pytest.mark.parametrize(
    "kind", [k for k, rule in event_rules.MESSAGES_BLOCKS.items() if rule is Rule.UNKNOWN] + ["new_block"]
)
def test_message_blocks_that_are_not_understood_are_handed_on(kind: str) -> None:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": kind}}
    [event] = EventDecoder().feed(start)
    assert isinstance(event, UnknownEvent)


@pytest.mark.parametrize("decoder", [ResponseDecoder(), EventDecoder()])
def test_an_event_type_that_nobody_knows_is_handed_on(decoder: Any) -> None:
    [event] = decoder.feed({"type": "brand_new", "text": "x"})
    assert isinstance(event, UnknownEvent)
