"""A prompt of the registry with its variables filled in: whose words are whose, until it is sent.

The prompt's own words are the operator's. What was put in is what applications take from their users, so it
is checked as a user's words are, on the surface `input`: stopped there, or rewritten before it is part of the
prompt. A model gets one text.
"""

from __future__ import annotations

import msgspec

from stanchion.core.codec import Digest
from stanchion.core.interaction import Interaction, Message, Role, Text
from stanchion.core.origin import Origin


class ResolvedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What a request gets: the text filled in, and the digest of the version for its component set.

    `pieces` are the text in order: words of the prompt itself (False), and values that were put in (True).
    """

    name: str
    version: int
    digest: Digest
    pieces: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join([words for words, _ in self.pieces])

    @property
    def versioned(self) -> str:
        """`support@v3`, for `RequestFacts.prompt` and switches."""
        return f"{self.name}@v{self.version}"

    @property
    def message(self) -> Message:
        """The system message, a part for each piece."""
        parts = [
            Text(text=words, origin=Origin.USER if is_value else Origin.SYSTEM)
            for words, is_value in self.pieces or (("", False),)
        ]
        return Message(role=Role.SYSTEM, parts=tuple(parts))


def said_as_one(checked: Interaction, *, filled: Message) -> Interaction:
    """What was checked, with its first message as the model reads it: the pieces of the prompt as one text.

    `filled` is that message as it was before the checks; parts that they put behind it stay parts.
    """
    count = len(filled.parts)
    if count == 1:
        return checked
    first, *others = checked.messages
    words = "".join([part.text for part in first.parts[:count] if isinstance(part, Text)])
    whole = Text(text=words, origin=Origin.SYSTEM)
    first = msgspec.structs.replace(first, parts=(whole, *first.parts[count:]))
    return msgspec.structs.replace(checked, messages=(first, *others))
