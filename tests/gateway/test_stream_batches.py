"""Events that came together: words as one piece, and the last words with the end that came with them."""

from __future__ import annotations

import pytest

from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    Usage,
    UsageEvent,
)
from stanchion.gateway.stream_flow import last_words_of, together

END = End(finish_reason=FinishReason.STOP)
USAGE = UsageEvent(usage=Usage(input_tokens=1, output_tokens=2))
WORDS = TextDelta(text="all of it ")


def test_words_of_one_block_are_one_piece() -> None:
    batch = [TextDelta(text="a "), TextDelta(text="b "), TextDelta(text="c", index=1), USAGE, END]
    assert list(together(batch)) == [TextDelta(text="a b "), TextDelta(text="c", index=1), USAGE, END]


def test_one_event_is_itself() -> None:
    assert list(together([WORDS])) == [WORDS]


def test_the_last_words_are_those_right_before_the_end() -> None:
    assert last_words_of([TextDelta(text="first"), WORDS, USAGE, END]) is WORDS
    assert last_words_of([WORDS, END]) is WORDS


@pytest.mark.parametrize(
    "batch",
    [
        [WORDS],
        [WORDS, USAGE],
        [END],
        [WORDS, ArgumentDelta(index=1, json="{}"), END],
        [WORDS, RefusalDelta(text="no", index=1), END],
    ],
)
def test_words_before_something_else_do_not_wait(batch: list[StreamEvent]) -> None:
    assert last_words_of(batch) is None
