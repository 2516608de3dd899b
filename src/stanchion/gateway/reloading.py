"""A reload that every worker of a gateway takes, and that says how many did.

The process of the admin API reads the files first: what is broken reaches nobody. Then the parent tells all
workers, and each of them says in the table of replicas what it serves. Other gateways are not reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError
from stanchion.gateway.gateway_file import GatewayModel
from stanchion.gateway.replicas import Replica, Replicas
from stanchion.store.times import to_us

RELOAD_S = 120.0
_LOOK_S = 0.05
_START_ONLY = ("listen", "admin_listen", "records", "secrets_renew_s")
_START_ONLY_TELEMETRY = ("otlp_endpoint", "service", "semconv", "openinference")


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did. `needs_restart` names changed settings that are read at the start only.

    `elsewhere` counts live replicas of other gateways, which were not asked.
    """

    configuration: str
    workers: int
    taken: int
    elsewhere: int = 0
    needs_restart: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"{self.taken} of {self.workers} at {self.configuration}"]
        if self.needs_restart:
            said.append(f"changed, and read at the start only: {', '.join(self.needs_restart)}")
        if self.elsewhere:
            said.append(f"live replicas of other gateways, which were not asked: {self.elsewhere}")
        return "; ".join(said)


class WorkersReload:
    """Reloads this process, then the others of its gateway. Blocks; for a thread beside the event loop.

    `reload` gives the digest of what this process serves now and the settings that need a restart. `tell`
    reaches the other workers; `workers` is how many serve in all, and `group` what they are known by.
    """

    def __init__(
        self,
        replicas: Replicas,
        *,
        reload: Callable[[], tuple[str, tuple[str, ...]]],
        tell: Callable[[], None],
        group: str,
        workers: int,
        clock: Clock,
        most_s: float = RELOAD_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._replicas, self._reload, self._tell = replicas, reload, tell
        self._group, self._workers, self._clock = group, workers, clock
        self._most_s, self._sleep = most_s, sleep

    def __call__(self) -> Reloaded:
        """Reload all workers.

        Raises:
            StanchionError: when the files cannot be used; nobody was told then.
            UnavailableError: when not all workers took it in time, or that cannot be known.
        """
        digest, needs_restart = self._reload()
        if self._workers == 1:
            elsewhere = sum(not self._is_ours(each) for each in self._live())
            return Reloaded(
                configuration=digest, workers=1, taken=1, elsewhere=elsewhere, needs_restart=needs_restart
            )
        asked_us = to_us(self._clock.now())
        end_ns = self._clock.monotonic_ns() + int(self._most_s * 1e9)
        self._tell()
        while True:
            live = self._live()
            ours = [each for each in live if self._is_ours(each)]
            taken = [each for each in ours if _took(each, digest, asked_us)]
            failed = [each for each in ours if _tried(each, asked_us) and each not in taken]
            workers = max(self._workers, len(ours))
            if len(taken) == workers:
                return Reloaded(
                    configuration=digest,
                    workers=workers,
                    taken=workers,
                    elsewhere=len(live) - len(ours),
                    needs_restart=needs_restart,
                )
            has_ended = failed and all(_tried(each, asked_us) for each in ours)
            if has_ended or self._clock.monotonic_ns() >= end_ns:
                raise _incomplete(digest, len(taken), workers, [one for one in ours if one not in taken])
            self._sleep(_LOOK_S)

    def _live(self) -> list[Replica]:
        return self._replicas.live(with_about=True)

    def _is_ours(self, replica: Replica) -> bool:
        return replica.about is not None and replica.about.group == self._group


def needs_restart(before: GatewayModel, now: GatewayModel, *, without: Sequence[str] = ()) -> tuple[str, ...]:
    """The settings that differ and that a reload does not change; `without` are those that do not count."""
    changed = [name for name in _START_ONLY if getattr(before, name) != getattr(now, name)]
    changed += [
        f"telemetry.{name}"
        for name in _START_ONLY_TELEMETRY
        if getattr(before.telemetry, name) != getattr(now.telemetry, name)
    ]
    return tuple(name for name in changed if name not in without)


def _tried(replica: Replica, asked_us: int) -> bool:
    return replica.about is not None and replica.about.tried_at_us >= asked_us


def _took(replica: Replica, digest: str, asked_us: int) -> bool:
    said = replica.about
    return (
        _tried(replica, asked_us) and said is not None and not said.trouble and said.configuration == digest
    )


def _incomplete(digest: str, taken: int, workers: int, missing: Sequence[Replica]) -> UnavailableError:
    lines = [
        f"pid {each.pid} is at {each.about.configuration if each.about else 'nothing'}"
        + (f" ({each.about.trouble})" if each.about and each.about.trouble else "")
        for each in missing
    ]
    silent = workers - taken - len(missing)
    if silent > 0:
        lines.append(f"{silent} did not say anything")
    return UnavailableError(
        f"{taken} of {workers} at {digest}: {'; '.join(lines)}.",
        hint="Ask again, and see the log of `stanchion serve`. A worker that starts reads the new files.",
    )
