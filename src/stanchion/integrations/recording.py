"""What an integration tells of each thing it decided: ids, effects and counts, never a word of the text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec

from stanchion.core.decision import Decision, Effect

_log = logging.getLogger("stanchion.integrations")


class GuardEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was decided at one hook.

    `is_allowed` says whether it went on, rewritten or not. `error` is set when the check itself broke, which
    stops what was checked: the name of what was raised. `guarantee` is that of a stream.
    """

    integration: str
    hook: str
    decisions: tuple[Decision, ...] = ()
    is_allowed: bool = True
    guarantee: str = ""
    error: str = ""

    @property
    def strictest(self) -> Decision | None:
        """The decision that held; None when nothing could be decided."""
        return max(self.decisions, key=lambda one: one.enforced_effect.rank, default=None)

    @property
    def effect(self) -> Effect:
        """What was done; block when the check broke."""
        if self.error:
            return Effect.BLOCK
        return Effect.ALLOW if self.strictest is None else self.strictest.enforced_effect

    @property
    def reference(self) -> str:
        """What finds the decision that held in a record."""
        return "" if self.strictest is None else self.strictest.reference


Recorder = Callable[[GuardEvent], None]


def log_event(event: GuardEvent) -> None:
    """The default recorder: one line in the log `stanchion.integrations`."""
    level = logging.ERROR if event.error else logging.INFO if event.is_allowed else logging.WARNING
    _log.log(
        level,
        "%s %s: %s (reference %s, surfaces %s%s)",
        event.integration,
        event.hook,
        event.effect.value,
        event.reference or "none",
        ",".join(dict.fromkeys(one.surface.value for one in event.decisions)) or "none",
        f", {event.error}" if event.error else "",
    )


class Recording:
    """Hands every event of one integration to a recorder. A recorder that breaks is logged and counted."""

    def __init__(self, integration: str, recorder: Recorder | None = None) -> None:
        self.integration = integration
        self.failures = 0
        self._recorder = recorder or log_event

    def note(
        self, hook: str, decisions: Iterable[Decision], *, is_allowed: bool = True, guarantee: str = ""
    ) -> None:
        """Something was decided."""
        self._tell(
            GuardEvent(
                integration=self.integration,
                hook=hook,
                decisions=tuple(decisions),
                is_allowed=is_allowed,
                guarantee=guarantee,
            )
        )

    def broke(self, hook: str, error: BaseException) -> None:
        """A check broke, and what it was about does not go on."""
        event = GuardEvent(
            integration=self.integration, hook=hook, is_allowed=False, error=type(error).__name__
        )
        self._tell(event)

    def _tell(self, event: GuardEvent) -> None:
        try:
            self._recorder(event)
        except Exception as error:  # somebody else's code, behind a decision that stands
            self.failures += 1
            _log.error("a recorder of decisions failed: %s", type(error).__name__)
