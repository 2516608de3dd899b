"""Files in a request reach the guard as media, and go on to the vendor as they came."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Media, Message, Opaque, Role
from stanchion.core.origin import Origin
from stanchion.models import anthropic, openai
from stanchion.models.wire import data_url, media_from_url

PDF = base64.b64encode(b"%PDF-1.7 ...").decode()


def openai_parts(*content: dict[str, Any]) -> tuple[Any, ...]:
    body = {"model": "m", "messages": [{"role": "user", "content": list(content)}]}
    return openai.decode_request(body).interaction.messages[0].parts


def anthropic_parts(*content: dict[str, Any]) -> tuple[Any, ...]:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": list(content)}]}
    return anthropic.decode_request(body).interaction.messages[0].parts


OPENAI = [
    {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
    {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
    {"type": "file", "file": {"file_id": "file-1"}},
]
ANTHROPIC = [
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    {
        "type": "document",
        "title": "Terms",
        "source": {"type": "text", "media_type": "text/plain", "data": "30 days — ünïcode"},
        "context": "valid in 2026",
        "citations": {"enabled": True},
    },
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": ""}},
    {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
    {"type": "document", "source": {"type": "file", "file_id": "f-1"}},
    {"type": "image", "source": {"type": "file", "file_id": "f-2"}},
]


@pytest.mark.parametrize("part", OPENAI, ids=str)
def test_a_file_of_openai_is_media_and_is_sent_on_as_it_came(part: dict[str, Any]) -> None:
    (media,) = openai_parts(part)
    assert isinstance(media, Media)
    assert media.origin is Origin.USER
    sent = openai.encode_request(Interaction(messages=(Message(role=Role.USER, parts=(media,)),)))
    assert sent["messages"][0]["content"] == [part]


@pytest.mark.parametrize("part", ANTHROPIC, ids=str)
def test_a_document_of_anthropic_is_media_and_is_sent_on_as_it_came(part: dict[str, Any]) -> None:
    (media,) = anthropic_parts(part)
    assert isinstance(media, Media)
    sent = anthropic.encode_request(Interaction(messages=(Message(role=Role.USER, parts=(media,)),)))
    assert sent["messages"][0]["content"] == [part]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": PDF}},  # no data URL: nothing says what it is
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "file_id": "f"}},
        {"type": "file", "file": {"file_id": "f", "later_field": 1}},
        {"type": "file", "file": {"filename": 3, "file_id": "f"}},
        {"type": "file", "file": "f"},
        {"type": "file"},
        {"type": "video_url", "video_url": {"url": "https://x.example/a.mp4"}},
    ],
    ids=str,
)
def test_what_a_media_part_cannot_say_stays_whole(part: dict[str, Any]) -> None:
    (found,) = openai_parts(part)
    assert found == Opaque(kind=f"openai:{part['type']}", payload=part)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": 3}},
        {"type": "document", "title": 3, "source": {"type": "url", "url": "https://x.example"}},
        {"type": "document"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a", "more": 1}},
        {"type": "search_result", "source": "s", "title": "t", "content": []},
    ],
    ids=str,
)
def test_blocks_that_are_no_media_stay_whole(block: dict[str, Any]) -> None:
    (found,) = anthropic_parts(block)
    assert found == Opaque(kind=f"anthropic:{block['type']}", payload=block)


def test_an_embedded_file_can_change_vendors_and_a_kept_one_cannot() -> None:
    (embedded,) = openai_parts(OPENAI[0])
    sent = anthropic.encode_blocks((embedded,))
    assert sent[0]["source"] == {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert sent[0]["title"] == "a.pdf"
    (kept,) = openai_parts(OPENAI[2])
    with pytest.raises(UsageError, match="cannot be said in the anthropic API"):
        anthropic.encode_blocks((kept,))
    (with_rules,) = anthropic_parts(ANTHROPIC[1])
    with pytest.raises(UsageError, match="cannot be said in the openai API"):
        openai.encode_request(Interaction(messages=(Message(role=Role.USER, parts=(with_rules,)),)))
    (image,) = anthropic_parts(ANTHROPIC[5])
    with pytest.raises(UsageError, match="cannot be said in the openai API"):
        openai.encode_request(Interaction(messages=(Message(role=Role.USER, parts=(image,)),)))


@given(st.binary(max_size=50), st.text(max_size=20), st.sampled_from(["application/pdf", "text/csv"]))
def test_every_embedded_file_comes_back(data: bytes, name: str, kind: str) -> None:
    url = data_url(kind, base64.b64encode(data).decode())
    media = media_from_url(url, origin=Origin.USER, fallback_type="x/y", name=name)
    asked = Interaction(messages=(Message(role=Role.USER, parts=(media,)),), model="m")
    assert openai.decode_request(openai.encode_request(asked)).interaction.messages == asked.messages
    assert anthropic.decode_request(anthropic.encode_request(asked)).interaction.messages == asked.messages
