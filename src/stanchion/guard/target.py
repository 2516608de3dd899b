"""A model or a whole feature under guard, as one more target."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

import msgspec

from stanchion.core.components import ComponentSet
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Interaction, Reply, StreamEvent
from stanchion.core.target import Target
from stanchion.guard.exchange import PreparedInteraction
from stanchion.guard.streaming import StreamGuard
from stanchion.models.client import ModelClient
from stanchion.models.events import events_of


class Preparer(Protocol):
    """The part of a guard that a target needs."""

    @property
    def components(self) -> ComponentSet:
        """See `Guard.components`."""
        ...

    async def aprepare(
        self, interaction: Interaction, *, context: Mapping[str, tuple[str, ...]] | None = None
    ) -> PreparedInteraction:
        """See `Guard.aprepare`."""
        ...

    async def afinish(
        self,
        prepared: PreparedInteraction,
        reply: Reply,
        *,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Interaction:
        """See `Guard.afinish`."""
        ...

    def stream(
        self,
        prepared: PreparedInteraction,
        *,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> StreamGuard:
        """See `Guard.stream`."""
        ...


class GuardedTarget:
    """A target whose every input and reply is checked. A blocked request never reaches the inner target."""

    def __init__(self, guard: Preparer, inner: Target) -> None:
        self._guard = guard
        self._inner = inner

    @property
    def id(self) -> str:
        """The inner target's id, and that it is guarded."""
        return f"{self._inner.id} guarded"

    @property
    def inner(self) -> Target:
        """The target under guard."""
        return self._inner

    @property
    def components(self) -> ComponentSet:
        """The inner target's components with the guard's policy and detectors."""
        return self._inner.components.merged(self._guard.components)

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The interaction with a reply that may be shown; `reply.decisions` holds the guard's, inputs first.

        Raises:
            UnavailableError: when the inner target gave no reply.
        """
        prepared = await self._guard.aprepare(interaction)
        if prepared.blocked is not None:
            return msgspec.structs.replace(interaction, reply=prepared.blocked)
        answered = await self._inner.invoke(prepared.interaction)
        if answered.reply is None:
            raise UnavailableError(f"target {self._inner.id!r} gave no reply.")
        return await self._guard.afinish(_enriched(prepared, answered), answered.reply)

    async def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        """The events of a reply that may be shown; needs an inner target that streams.

        Raises:
            UsageError: when the inner target does not stream.
            UnavailableError: when its answer breaks off; nothing of what waited is given then.
        """
        inner = self._inner
        if not isinstance(inner, ModelClient):
            raise UsageError(f"target {inner.id!r} does not stream.", hint="Use invoke().")
        prepared = await self._guard.aprepare(interaction)
        if prepared.blocked is not None:
            for event in events_of(prepared.blocked):
                yield event
            return
        guarded = self._guard.stream(prepared)
        events = inner.stream(prepared.interaction)
        try:
            async for event in events:
                for released in await guarded.feed(event):
                    yield released
                if guarded.was_stopped:
                    break
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        for released in await guarded.finish():
            yield released

    async def aclose(self) -> None:
        """Close the inner target."""
        await self._inner.aclose()


def _enriched(prepared: PreparedInteraction, answered: Interaction) -> PreparedInteraction:
    """What the inner target added on its way: the documents it retrieved, and what it is made of."""
    added: dict[str, object] = {}
    if answered.documents != prepared.interaction.documents:
        added["documents"] = answered.documents
    if answered.components != prepared.interaction.components:
        added["components"] = answered.components
    if not added:
        return prepared
    original = msgspec.structs.replace(prepared.original, **added)
    return msgspec.structs.replace(prepared, original=original)
