"""Parameters that would be misread, or whose answer nothing checks, are refused and not passed over."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.models.surfaces import SURFACES
from stanchion.models.wire import WireError

BODIES: dict[str, dict[str, Any]] = {
    "openai.chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "openai.responses": {"model": "m", "input": "hi"},
    "anthropic.messages": {
        "model": "m",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hi"}],
    },
}


@pytest.mark.parametrize("name", list(BODIES))
@pytest.mark.parametrize("value", ["true", 1, [], {}])
def test_stream_is_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(WireError, match="stream: true or false is needed here"):
        SURFACES[name].decode_request({**BODIES[name], "stream": value})
    assert not SURFACES[name].decode_request({**BODIES[name], "stream": None}).stream
    assert SURFACES[name].decode_request({**BODIES[name], "stream": True}).stream


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("openai.chat", {"logprobs": True}),
        ("openai.chat", {"top_logprobs": 3}),
        ("openai.responses", {"top_logprobs": 3}),
    ],
)
def test_tokens_that_nothing_checks_are_refused(name: str, extra: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="would pass unchecked"):
        SURFACES[name].decode_request({**BODIES[name], **extra})
    off: dict[str, Any] = dict.fromkeys(extra)
    SURFACES[name].decode_request({**BODIES[name], **off})
