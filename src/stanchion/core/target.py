"""What an eval asks: anything that turns an interaction into the same interaction with a reply."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stanchion.core.components import ComponentSet
from stanchion.core.interaction import Interaction


@runtime_checkable
class Target(Protocol):
    """An endpoint, a model, a guard, a detector, a recording or a whole feature, as one async call."""

    @property
    def id(self) -> str:
        """A short name for reports, such as `local:smollm2-135m` or `support-assistant guarded`."""
        ...

    @property
    def components(self) -> ComponentSet:
        """What the target is made of; a part of every score's identity."""
        ...

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The interaction with its reply.

        Raises:
            UnavailableError: when no answer came that can be judged.
            DeadlineError: when it did not come in time.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and models; safe to call twice."""
        ...
