"""Flags of any OpenFeature provider, as decisions may lean on them: safe when unknown, counted, in memory.

flags = SafeFlags(api.get_client(), [Flag("feature.checkout.enabled", safe=False)])

A flag can only tighten: `FlaggedSwitches` adds stops to the switches and lifts none, `FlaggedRollout` holds
variants back and gives nobody one that the rollout did not.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.errors import UnknownNameError

_log = logging.getLogger(__name__)


class Flag(msgspec.Struct, frozen=True):
    """A flag and its safe value: a boolean, a share in [0, 1], or a text that is one of `values`.

    `asked` is its key at the provider, where that is another one.
    """

    key: str
    safe: bool | float | str
    values: tuple[str, ...] = ()
    asked: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a flag said last. `problem` is empty when its provider gave the value."""

    value: bool | float | str
    variant: str = ""
    problem: str = ""


class SafeFlags:
    """Declared flags, read in a thread every `refresh_s` and kept in memory; thread-safe.

    A flag that its provider does not know, that has another type, a share outside [0, 1], a provider that
    fails, and a reading older than `max_age_s` all give the safe value, and are counted in `problems`.
    """

    def __init__(
        self,
        client: Any,
        flags: Iterable[Flag],
        *,
        context: Any = None,
        refresh_s: float = 1.0,
        max_age_s: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """`client` is an OpenFeature client; `context` its evaluation context for all of them."""
        self._client, self._context = client, context
        self._flags = {flag.key: flag for flag in flags}
        self._refresh_s, self._max_age_s = refresh_s, max_age_s
        self._clock = clock or SystemClock()
        self._readings: dict[str, Reading] = {}
        self._read_ns = 0
        self._version = ""
        self._said = "READY"
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.problems: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        """Read once, then go on in a thread."""
        if self._thread is None:
            self.refresh()
            self._stopping.clear()
            self._thread = threading.Thread(target=self._follow, name="stanchion-flags", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Read no more; the safe values hold once the readings are too old."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(self._refresh_s + 1)

    def refresh(self) -> None:
        """Read every flag now; this may wait for the provider.

        A provider that says it is not ready may still give what it last knew: that is not taken as read now,
        so that it is too old in time.
        """
        status = self._status()
        if status != "READY" and self._readings:
            if status != self._said:
                _log.warning(
                    "the provider of flags says %s; its last values hold until they are too old.", status
                )
            self._said = status
            return
        self._said = status
        readings = {key: self._read(flag) for key, flag in self._flags.items()}
        for key, reading in readings.items():
            if reading.problem:
                self.problems[key, reading.problem] += 1
                before = self._readings.get(key)
                if before is None or before.problem != reading.problem:
                    _log.warning("flag %r: %s; its safe value holds.", key, reading.problem)
        self._readings, self._read_ns = readings, self._clock.monotonic_ns()
        self._version = _version(readings)

    def reading(self, key: str) -> Reading:
        """What a flag says now, from memory.

        Raises:
            UnknownNameError: for a flag that was not declared: it has no safe value.
        """
        flag = self._flags.get(key)
        if flag is None:
            raise UnknownNameError("flag", key, self._flags)
        found = self._readings.get(key)
        if found is None or self._is_too_old:
            problem = "not_read" if found is None else "too_old"
            self.problems[key, problem] += 1
            return Reading(value=flag.safe, problem=problem)
        return found

    @property
    def _is_too_old(self) -> bool:
        return (self._clock.monotonic_ns() - self._read_ns) / 1e9 > self._max_age_s

    @property
    def version(self) -> str:
        """A short digest of every value that holds now; `safe` while they are unread or too old."""
        return "safe" if not self._readings or self._is_too_old else self._version

    def unsafe(self) -> dict[str, str]:
        """The flags whose safe value holds now, with what is wrong."""
        if not self._readings or self._is_too_old:
            return dict.fromkeys(self._flags, "too_old" if self._readings else "not_read")
        return {key: one.problem for key, one in self._readings.items() if one.problem}

    def text(self, key: str) -> str:
        """A text, one of the flag's values."""
        return str(self.reading(key).value)

    def is_on(self, key: str) -> bool:
        """Whether a boolean flag is on."""
        return self.reading(key).value is True

    def share(self, key: str) -> float:
        """A share in [0, 1]; a boolean counts as 0 or 1."""
        return float(self.reading(key).value)

    def declared(self, key: str) -> bool:
        """Whether a flag was declared."""
        return key in self._flags

    def _status(self) -> str:
        ask = getattr(self._client, "get_provider_status", None)
        try:
            return "READY" if ask is None else str(ask().value)
        except Exception as error:  # a provider is somebody else's code
            return type(error).__name__

    def _follow(self) -> None:
        while not self._stopping.wait(self._refresh_s):
            self.refresh()

    def _read(self, flag: Flag) -> Reading:
        try:
            key = flag.asked or flag.key
            if isinstance(flag.safe, bool):
                details = self._client.get_boolean_details(key, flag.safe, self._context)
            elif isinstance(flag.safe, str):
                details = self._client.get_string_details(key, flag.safe, self._context)
            else:
                details = self._client.get_float_details(key, flag.safe, self._context)
        except Exception as error:  # a provider is somebody else's code
            return Reading(value=flag.safe, problem=type(error).__name__)
        if details.error_code:
            return Reading(value=flag.safe, problem=str(details.error_code.value).lower())
        if str(details.reason) in ("ERROR", "STALE"):
            return Reading(value=flag.safe, problem=str(details.reason).lower())
        if details.variant in (None, "", "No-op", "Passed in default"):
            return Reading(value=flag.safe, problem="no_variant")  # the SDK's answer without a provider
        return _sound(flag, details.value, details.variant or "")


def _version(readings: Mapping[str, Reading]) -> str:
    said = sorted((key, str(one.value), one.problem) for key, one in readings.items())
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def _sound(flag: Flag, value: Any, variant: str) -> Reading:
    if isinstance(flag.safe, bool):
        if not isinstance(value, bool):
            return Reading(value=flag.safe, problem="type_mismatch")
        return Reading(value=value, variant=variant)
    if isinstance(flag.safe, str):
        if not isinstance(value, str):
            return Reading(value=flag.safe, problem="type_mismatch")
        if value not in flag.values:
            return Reading(value=flag.safe, problem="not_among_its_values")
        return Reading(value=value, variant=variant)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Reading(value=flag.safe, problem="type_mismatch")
    if not math.isfinite(value) or not 0 <= value <= 1:
        return Reading(value=flag.safe, problem="out_of_range")
    return Reading(value=float(value), variant=variant)


class FlagStop(msgspec.Struct, frozen=True, kw_only=True):
    """What a flag stops, in the words of a switch."""

    switch_id: str
    level: str
    name: str
    version: int
    reason: str = ""


class FlaggedSwitches:
    """The switches, and flags that stop something besides: `feature.NAME.enabled`, `model.NAME.enabled`, ...

    The switches are asked first, and what they stop stays stopped whatever any flag says.
    """

    def __init__(self, switches: Any, flags: SafeFlags, *, make_stop: Callable[..., Any] = FlagStop) -> None:
        """`switches` is the gateway's board; `make_stop` makes its kind of answer (`ports.Engaged`)."""
        self._switches, self._flags, self._make_stop = switches, flags, make_stop

    @property
    def version(self) -> int:
        """The switches' version."""
        return int(self._switches.version)

    def find(self, facts: Any) -> Any:
        """What stops a request: a switch, else a flag."""
        return self._switches.find(facts) or self._by_flag(
            {"feature": facts.feature, "model": facts.model, "provider": facts.provider}
        )

    def find_tool(self, facts: Any, tool: str) -> Any:
        """What stops a call of this tool: a switch, else a flag."""
        return self._switches.find_tool(facts, tool) or self.find(facts) or self._by_flag({"tool": tool})

    def follow(self, facts: Any, on_engaged: Callable[[Any], None]) -> Any:
        """Follow the switches; flags are looked at when a request begins and not while it runs."""
        return self._switches.follow(facts, on_engaged)

    def _by_flag(self, names: Mapping[str, str]) -> Any:
        for level, name in names.items():
            key = f"{level}.{name}.enabled"
            if name and self._flags.declared(key) and not self._flags.is_on(key):
                reading = self._flags.reading(key)
                reason = f"the flag {key} is off" if not reading.problem else f"{key}: {reading.problem}"
                return self._make_stop(
                    switch_id=f"flag:{key}", level=level, name=name, version=self.version, reason=reason
                )
        return None


class FlaggedRollout:
    """A rollout that flags can hold back: `rollout.EXPERIMENT.share` of the keys keep their variant.

    A request that does not keep one of its variants gets none of them: it is asked as the file says. A flag
    that was not declared changes nothing.
    """

    def __init__(self, rollout: Any, flags: SafeFlags, *, control: str = "control") -> None:
        """`rollout` is the gateway's own; `control` is its word for no variant."""
        self._rollout, self._flags, self._control = rollout, flags, control

    def choose(self, facts: Any) -> Any:
        """The variants, as far as the flags let them through."""
        chosen = self._rollout.choose(facts)
        names = {*chosen.variants, *(shadow.experiment for shadow in chosen.shadows)}
        if not any(self._is_held_back(name, facts) for name in names):
            return chosen
        kind = type(chosen)
        return kind(variants=dict.fromkeys(chosen.variants, self._control))

    def observe(self, facts: Any, assignment: Any, outcome: Any, *, latency_ms: float) -> None:
        """What became of the request. What a flag held back is no fair control, so it is not counted."""
        if any(self._is_held_back(name, facts) for name in assignment.variants):
            return
        self._rollout.observe(facts, assignment, outcome, latency_ms=latency_ms)

    def _is_held_back(self, experiment: str, facts: Any) -> bool:
        key = f"rollout.{experiment}.share"
        return self._flags.declared(key) and _point(key, _sticky(facts)) >= self._flags.share(key)


def _sticky(facts: Any) -> str:
    known = (facts.user_key, facts.session_id, facts.tenant, facts.key_id, facts.id)
    return next((str(each) for each in known if each), "")


def _point(key: str, sticky: str) -> float:
    """Where a key stands on [0, 1), the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{key}\0{sticky}".encode()).digest()[:7], "big") / 2**56
