"""What every model offers: one answer at once, or the same answer as events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

from stanchion.core.codec import Digest, digest, to_builtins
from stanchion.core.interaction import Interaction, StreamEvent
from stanchion.core.target import Target

_REQUEST_FIELDS = ("messages", "documents", "tools", "model", "sampling")


@runtime_checkable
class ModelClient(Target, Protocol):
    """A target that can also stream.

    `invoke` and `stream` give the same answer to the same request wherever the model is deterministic.
    """

    def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        """The events of the answer; the last one is `End`.

        Closing the iterator early cancels the generation.

        Raises:
            UnavailableError: when the answer breaks off; a stream without `End` is never a whole answer.
            DeadlineError: when it did not come in time.
        """
        ...


def request_content(interaction: Interaction) -> dict[str, Any]:
    """What the model is asked, without ids, times, labels and reply: the part that decides the answer."""
    return {name: to_builtins(getattr(interaction, name)) for name in _REQUEST_FIELDS}


def request_digest(interaction: Interaction) -> Digest:
    """The identity of a request; equal for two interactions that ask the same thing in the same words.

    Raises:
        UsageError: when the request has no canonical JSON (lone surrogates, NaN).
    """
    return digest(request_content(interaction))
