"""Our switches as an OpenFeature provider: a boolean flag for each thing that can be switched off.

api.set_provider_and_wait(make_provider(AdminSwitches("http://127.0.0.1:8081", key=...)))
api.get_client().get_boolean_value("stanchion.feature.checkout", False)

True: it may run. What is not known is False, whatever default the caller gave. The one exception is the
SDK's own: before a provider is ready it answers with the caller's default, so give False there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stanchion.integrations.foreign import load
from stanchion.integrations.switch_flags import PREFIX, SwitchView, question_of


class _Provider:
    """What is ours of the provider; `make_provider` adds OpenFeature's base class."""

    _flag: Any
    _errors: Any
    _metadata: Any

    def __init__(self, view: SwitchView, start: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__()
        self._view, self._start, self._stop = view, start, stop

    def initialize(self, evaluation_context: Any) -> None:
        """Begin to follow the switches; while they are not known every flag is off."""
        self._start()

    def shutdown(self) -> None:
        """Follow them no more."""
        self._stop()

    def get_metadata(self) -> Any:
        """The provider's name."""
        return self._metadata.Metadata(name="stanchion")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: Any = None
    ) -> Any:
        """Whether something may run.

        Raises:
            FlagNotFoundError: for a flag that is not one of ours.
        """
        if not flag_key.startswith(PREFIX):
            raise self._errors.FlagNotFoundError(f"{flag_key!r} is no flag of Stanchion.")
        attributes = {} if evaluation_context is None else evaluation_context.attributes
        question = question_of(flag_key, attributes)
        reasons = self._flag.Reason
        if question is None:
            return self._answer(False, reasons.UNKNOWN, "unknown_flag", {"version": self._view.version})
        stop = question.ask(self._view)
        if stop is None:
            return self._answer(True, reasons.TARGETING_MATCH, "on", {"version": self._view.version})
        told = {
            "version": stop.version,
            "switch_id": stop.switch_id,
            "level": stop.level,
            "why": stop.reason,
        }
        if stop.version < 0:
            return self._answer(False, reasons.UNKNOWN, "not_known", told)
        return self._answer(False, reasons.TARGETING_MATCH, "off", told)

    def _answer(self, value: bool, reason: Any, variant: str, told: dict[str, Any]) -> Any:
        return self._flag.FlagResolutionDetails(
            value=value, reason=reason, variant=variant, flag_metadata=told
        )

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: Any = None
    ) -> Any:
        """The variant of a flag: `on`, `off`, `not_known` or `unknown_flag`."""
        found = self.resolve_boolean_details(flag_key, False, evaluation_context)
        return self._flag.FlagResolutionDetails(
            value=found.variant,
            reason=found.reason,
            variant=found.variant,
            flag_metadata=found.flag_metadata,
        )

    def _no_number(self, flag_key: str, default_value: Any, evaluation_context: Any = None) -> Any:
        raise self._errors.TypeMismatchError(f"{flag_key!r}: the flags of Stanchion are boolean.")

    resolve_integer_details = resolve_float_details = resolve_object_details = _no_number


def make_provider(
    view: SwitchView,
    *,
    start: Callable[[], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> Any:
    """An OpenFeature provider on somebody who knows the switches.

    `start` and `stop` are called with the provider's life (default: the view's own, where it has them).

    Raises:
        UsageError: without the package `openfeature-sdk`.
    """
    what = "the OpenFeature provider"
    base = load("openfeature.provider", package="openfeature-sdk", what=what)
    parts = {
        "_flag": load("openfeature.flag_evaluation", package="openfeature-sdk", what=what),
        "_errors": load("openfeature.exception", package="openfeature-sdk", what=what),
        "_metadata": base,
    }
    made = type("StanchionProvider", (_Provider, base.AbstractProvider), parts)
    return made(view, start or getattr(view, "start", _nothing), stop or getattr(view, "stop", _nothing))


def _nothing() -> None:
    return None
