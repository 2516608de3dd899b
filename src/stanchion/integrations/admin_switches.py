"""The switches as the admin API tells them over HTTP, for processes without the signed snapshot.

What it says is believed because of its address, not because of a signature: use TLS when it is not on this
host. A lower version than one that was seen is not taken, so that a copy which lags lifts nothing.
"""

from __future__ import annotations

import http.client
import logging
import threading
from typing import Any
from urllib.parse import urlsplit

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.errors import UnavailableError
from stanchion.integrations.switch_flags import LEVELS
from stanchion.models.http_client import checked_url

_log = logging.getLogger(__name__)
_PATH = "/admin/v1/switches"
_MAX_BYTES = 8 * 1024 * 1024
_FIELDS = {level: "prompt" if level == "prompt_version" else level for level in LEVELS if level != "tool"}


class _Target(msgspec.Struct, frozen=True):
    level: str
    name: str = ""


class _Switch(msgspec.Struct, frozen=True):
    id: str
    target: _Target
    version: int
    reason: str = ""


class _Lease(msgspec.Struct, frozen=True):
    target: _Target
    expires_at_us: int
    version: int


class _State(msgspec.Struct, frozen=True):
    engaged: tuple[_Switch, ...] = ()
    leases: tuple[_Lease, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    version: int
    state: _State


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """A switch that stands in the way; see `switch_flags.Stop`."""

    switch_id: str
    level: str
    name: str = ""
    version: int
    reason: str = ""


class AdminSwitches:
    """Follows the switches of an admin API in a thread; a `switch_flags.SwitchView`.

    Until it has answered once, everything is off. When it stops answering, what it said last holds, and after
    `stop_after_s` without an answer everything is off (None: never).
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str,
        poll_s: float = 1.0,
        timeout_s: float = 5.0,
        stop_after_s: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`key` is a virtual key with a role that may read, or the admin token of the host.

        Raises:
            UsageError: for an address that is no HTTP URL.
        """
        self._url = urlsplit(checked_url(base_url.rstrip("/") + _PATH, what="the address of the admin API"))
        self._key = key
        self._poll_s, self._timeout_s, self._stop_after_s = poll_s, timeout_s, stop_after_s
        self._clock = clock or SystemClock()
        self._known: _Answer | None = None
        self._heard_ns = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failures = 0
        self.trouble = ""

    @property
    def version(self) -> int:
        """The version that is obeyed; -1 while none is known."""
        return -1 if self._known is None else self._known.version

    @property
    def is_stale(self) -> bool:
        """Whether nothing was heard for so long that everything is off."""
        if self._stop_after_s is None or self._known is None:
            return False
        return (self._clock.monotonic_ns() - self._heard_ns) / 1e9 > self._stop_after_s

    def start(self) -> None:
        """Ask once, then follow in a thread. Never raises: what could not be asked is off."""
        if self._thread is not None:
            return
        self.refresh()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._follow, name="stanchion-flags", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(self._timeout_s + 1)

    def refresh(self) -> bool:
        """Ask now; whether there was an answer that may be obeyed."""
        try:
            answer = self._asked()
        except (OSError, http.client.HTTPException, msgspec.MsgspecError, UnavailableError) as error:
            self.failures += 1
            self.trouble = f"{type(error).__name__}: the switches cannot be asked at {self._url.netloc}"
            _log.warning("%s", self.trouble)
            return False
        if answer.version < self.version:
            self.failures += 1
            self.trouble = f"version {answer.version} is older than {self.version}, which was obeyed"
            return False
        self._known, self._heard_ns, self.trouble = answer, self._clock.monotonic_ns(), ""
        return True

    def find(self, facts: Any) -> Stopped | None:
        """See `switch_flags.SwitchView`."""
        return self._find(facts, "")

    def find_tool(self, facts: Any, tool: str) -> Stopped | None:
        """See `switch_flags.SwitchView`."""
        return self._find(facts, tool)

    def _find(self, facts: Any, tool: str) -> Stopped | None:
        known = self._known
        if known is None or self.is_stale:
            reason = (
                "the switches are not known" if known is None else "the switches were not heard of lately"
            )
            return Stopped(switch_id="fail-closed", level="global", version=-1, reason=reason)
        now_us = int(self._clock.now().timestamp() * 1_000_000)
        for switch in known.state.engaged:
            if _matches(switch.target, facts, tool):
                return _stopped(switch.target, switch.id, switch.version, switch.reason)
        for lease in known.state.leases:
            if now_us >= lease.expires_at_us and _matches(lease.target, facts, tool):
                name = f"lease:{lease.target.level}:{lease.target.name}"
                return _stopped(lease.target, name, lease.version, "the lease has ended")
        return None

    def _follow(self) -> None:
        while not self._stopping.wait(self._poll_s):
            self.refresh()

    def _asked(self) -> _Answer:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout_s)
        try:
            headers = {"authorization": f"Bearer {self._key}", "accept": "application/json"}
            connection.request("GET", self._url.path, headers=headers)
            response = connection.getresponse()
            body = response.read(_MAX_BYTES + 1)
        finally:
            connection.close()
        if response.status != 200 or len(body) > _MAX_BYTES:
            raise UnavailableError("the admin API refused.", status=response.status)
        return msgspec.json.decode(body, type=_Answer)


def _matches(target: _Target, facts: Any, tool: str) -> bool:
    """Whether a switch on this target stops what is asked; a level that is not known stops everything."""
    if target.level == "tool":
        return bool(tool) and target.name == tool
    field = _FIELDS.get(target.level)
    if field is None:
        return True
    value = str(getattr(facts, field, ""))
    if field == "prompt":
        return bool(value) and target.name in (value, value.partition("@")[0])
    return bool(value) and value == target.name


def _stopped(target: _Target, switch_id: str, version: int, reason: str) -> Stopped:
    return Stopped(switch_id=switch_id, level=target.level, name=target.name, version=version, reason=reason)
