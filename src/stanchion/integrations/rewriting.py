"""What a guard changed in a conversation, part by part, so that a framework's own messages can follow."""

from __future__ import annotations

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Message, Part, Role, Text


class Rewriting(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that say something else, by message and part; `instruction` goes into the system prompt."""

    parts: dict[tuple[int, int], Part]
    instruction: str = ""


def rewriting_of(original: Interaction, prepared: Interaction) -> Rewriting:
    """What has to change in the framework's messages.

    Raises:
        UsageError: for a change that they cannot follow, such as another tool definition.
    """
    if original is prepared:
        return Rewriting(parts={})
    if original.tools != prepared.tools:
        raise UsageError("the guard rewrote a tool's definition, which cannot be passed on here.")
    before, after, said = original.messages, prepared.messages, []
    if len(after) == len(before) + 1 and after[0].role is Role.SYSTEM:
        said += [part.text for part in after[0].parts if isinstance(part, Text)]
        after = after[1:]
    if len(after) != len(before):
        raise UsageError("the guard changed the number of messages, which cannot be passed on here.")
    changed: dict[tuple[int, int], Part] = {}
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        extra = new.parts[len(old.parts) :]
        said += [part.text for part in extra if isinstance(part, Text)]
        changed |= changed_parts(old, new, index)
    return Rewriting(parts=changed, instruction="\n".join(said))


def changed_parts(old: Message, new: Message, index: int = 0) -> dict[tuple[int, int], Part]:
    """The parts of a message that say something else, by position."""
    return {
        (index, number): after
        for number, (before, after) in enumerate(zip(old.parts, new.parts, strict=False))
        if before != after
    }
