"""The texts of an exchange as fields: each has a name, and is rewritten by it and nothing else."""

from __future__ import annotations

from typing import Any

from guard_fakes import chat
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.decision import Surface
from stanchion.core.interaction import Message, Reasoning, Refusal, Role, Text, ToolCall, assistant, user
from stanchion.core.origin import Origin
from stanchion.guard.fields import TextField, reply_fields, request_fields, rewrite_request

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4), st.text(max_size=20))
def test_every_field_can_be_rewritten_by_its_name_and_nothing_else_changes(
    arguments: dict[str, Any], text: str
) -> None:
    asked = chat(user(text), assistant("a", ToolCall(id="1", name="t", arguments=arguments)))
    fields = [f for f in request_fields(asked) if isinstance(f, TextField)]
    names = [f.field for f in fields]
    assert len(names) == len(set(names))
    assert rewrite_request(asked, {}) is asked
    same = {f.field: f.text for f in fields if f.is_rewritable}
    texts_before = [f.text for f in fields]
    again = [f.text for f in request_fields(rewrite_request(asked, same)) if isinstance(f, TextField)]
    assert again == texts_before
    for field in fields:
        if not field.is_rewritable:
            continue
        changed = rewrite_request(asked, {field.field: "\u241e"})
        after = {f.field: f.text for f in request_fields(changed) if isinstance(f, TextField)}
        assert after == {**{f.field: f.text for f in fields}, field.field: "\u241e"}


def test_reply_fields_name_their_surfaces() -> None:
    message = Message(
        role=Role.ASSISTANT,
        parts=(
            Reasoning(text="r"),
            Text(text="t", origin=Origin.MODEL),
            ToolCall(id="1", name="t", arguments={"a": "x"}),
            Refusal(text="f"),
        ),
    )
    surfaces = [(f.field, f.surface) for f in reply_fields(message)]
    assert surfaces == [
        ("reply.parts[0]", Surface.REASONING),
        ("reply.parts[1]", Surface.OUTPUT),
        ("reply.parts[2].arguments{keys}", Surface.TOOL_CALL),
        ("reply.parts[2].arguments.a", Surface.TOOL_CALL),
        ("reply.parts[3]", Surface.OUTPUT),
        ("reply.parts[1].joined", Surface.OUTPUT),
    ]
