"""A conversation with its state, and a change between two component sets."""

from __future__ import annotations

from datetime import datetime

import msgspec

from stanchion.core.components import ComponentKind, ComponentSet


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation carries from turn to turn: a value that its owner stores and passes back.

    `state` maps the name of a keeper (`taint`, `vault`, `monitors`) to that keeper's own serialised state.
    """

    id: str
    started_at: datetime
    feature: str = ""
    tenant: str = ""
    user_key: str = ""
    turns: int = 0
    state: dict[str, bytes] = msgspec.field(default_factory=dict)

    def with_state(self, keeper: str, state: bytes) -> Session:
        """The session with one keeper's state replaced."""
        return msgspec.structs.replace(self, state={**self.state, keeper: state})

    def next_turn(self) -> Session:
        """The session after one more exchange."""
        return msgspec.structs.replace(self, turns=self.turns + 1)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The difference between two component sets."""

    before: ComponentSet
    after: ComponentSet

    @property
    def kinds(self) -> tuple[ComponentKind, ...]:
        """What changed."""
        return self.after.changed_from(self.before)

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not self.kinds
