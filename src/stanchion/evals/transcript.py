"""What is kept of the words of a case: scrubbed, shortened, for failures and for a sampled share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from stanchion.core.interaction import (
    Interaction,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.evals.results import Transcript, Turn

Scrub = Callable[[str], str]
MAX_CHARACTERS = 8_000
PLANTED = "[planted]"


class Scribe:
    """Writes transcripts down; without a scrubber it writes none at all.

    Args:
        scrub: takes personal data and secrets out of a text. None: no text is ever stored.
        share: the share of cases without a failure whose words are kept as well, in [0, 1].
    """

    def __init__(self, scrub: Scrub | None = None, *, share: float = 0.01) -> None:
        self._scrub = scrub
        self._threshold = int(share * 0xFFFF)

    @property
    def writes(self) -> bool:
        """Whether any text is stored."""
        return self._scrub is not None

    def is_sampled(self, case_digest: str) -> bool:
        """Whether the case is in the sampled share; the same in every run of the same cases."""
        return int(case_digest[-4:] or "0", 16) < self._threshold

    def write(
        self, asked: Interaction, reply: Message | None, *, planted: Iterable[str] = ()
    ) -> Transcript | None:
        """The scrubbed words of an exchange; None without a scrubber.

        `planted` are texts that the case says must not get out: they are not written down either.
        """
        if self._scrub is None:
            return None
        hidden = tuple(text for text in planted if text)
        turns = tuple(_without(turn, hidden) for turn in self._turns(asked.messages))
        answer = tuple(_without(turn, hidden) for turn in self._turns((reply,))) if reply is not None else ()
        is_cut = any(len(turn.text) > MAX_CHARACTERS for turn in (*turns, *answer))
        return Transcript(turns=_shortened(turns), reply=_shortened(answer), is_truncated=is_cut)

    def scrubbed(self, text: str, *, planted: Iterable[str] = ()) -> str:
        """A short text fit to be stored, without the planted ones; empty without a scrubber."""
        if self._scrub is None:
            return ""
        return _hidden(self._scrub(text), tuple(word for word in planted if word))[:500]

    def _turns(self, messages: Iterable[Message]) -> Iterator[Turn]:
        for message in messages:
            for part in message.parts:
                kind, name, text = _words(message.role, part)
                yield Turn(kind=kind, name=name, text=self._scrub(text) if self._scrub and text else "")


def _without(turn: Turn, planted: tuple[str, ...]) -> Turn:
    """The turn with every planted text taken out, whatever its case."""
    text = _hidden(turn.text, planted)
    return turn if text == turn.text else Turn(kind=turn.kind, name=turn.name, text=text)


def _hidden(text: str, planted: tuple[str, ...]) -> str:
    for word in planted:
        text = re.sub(re.escape(word), PLANTED, text, flags=re.IGNORECASE)
    return text


def _words(role: Role, part: Part) -> tuple[str, str, str]:
    """Kind, name and text of one part."""
    match part:
        case Text(text=text, origin=Origin.RETRIEVED):
            return "document", part.source or "", text
        case Text(text=text):
            return role.value, part.source or "", text
        case Reasoning(text=text):
            return "reasoning", "", text
        case Refusal(text=text):
            return "refusal", "", text
        case ToolCall():
            arguments = part.raw_arguments if part.arguments is None else json.dumps(part.arguments)
            return "tool_call", part.name, arguments or ""
        case ToolResult(text=text):
            return "tool_result", part.name, text
        case Media():
            return "other", part.media_type, ""
        case _:
            return "other", part.kind, ""


def _shortened(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    return tuple(
        Turn(kind=turn.kind, name=turn.name, text=turn.text[:MAX_CHARACTERS] + " [...]")
        if len(turn.text) > MAX_CHARACTERS
        else turn
        for turn in turns
    )
