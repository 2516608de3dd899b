"""What a guard answers: about a text, a tool call, an exchange, and about itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from stanchion.core.decision import Decision
from stanchion.core.errors import BlockedError
from stanchion.core.interaction import Interaction, ToolCall
from stanchion.guard.vault import Vault


class GuardState(StrEnum):
    """What a guard does with its decisions; only `protecting` is a green state."""

    PROTECTING = "protecting"
    OBSERVING = "observing"
    UNPROTECTED = "UNPROTECTED"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about one text.

    `text` is what may be used: the text itself, the text with parts redacted, or, when it is not `allowed`,
    what stands in its place (words for the user, or a notice where a document was). Never the refused text.
    """

    decision: Decision
    text: str
    allowed: bool
    vault: Vault

    def __repr__(self) -> str:
        effect = self.decision.effect.value
        return f"Checked(effect={effect!r}, allowed={self.allowed}, text of {len(self.text)} characters)"

    @property
    def reference(self) -> str:
        """What finds the decision in a record."""
        return self.decision.reference

    def restore(self, text: str) -> str:
        """A later text with the values behind this session's vault tokens put back."""
        return self.vault.restore(text)

    def raise_if_blocked(self) -> Checked:
        """This answer, if the text is allowed.

        Raises:
            BlockedError: when it is not.
        """
        if not self.allowed:
            hint = f"Reference: {self.reference}."
            raise BlockedError(self.decision.reason, reference=self.reference, hint=hint)
        return self


class CheckedInteraction(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about an exchange: the interaction as it may go on, and every decision on the way.

    When a request is not `allowed`, the interaction carries the safe completion as its reply.
    """

    interaction: Interaction
    decisions: tuple[Decision, ...]
    allowed: bool


class CheckedCall(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about a tool call: the call as it may be made, or a denial that a model can read."""

    decision: Decision
    call: ToolCall
    allowed: bool
    denial: str = ""
    needs_approval: bool = False

    def __repr__(self) -> str:
        return f"CheckedCall(effect={self.decision.effect.value!r}, allowed={self.allowed})"

    @property
    def reference(self) -> str:
        """What finds the decision in a record."""
        return self.decision.reference


class CheckedValue(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about a tool's result: the value as it may be used, or what stands in its place."""

    decision: Decision
    value: Any
    allowed: bool

    def __repr__(self) -> str:
        return f"CheckedValue(effect={self.decision.effect.value!r}, allowed={self.allowed})"
