"""The replicas of the fleet: who is there, and which version each one obeys.

A replica writes its row when it starts, every few seconds, and as soon as it obeys something new. One that
has not been heard of for `LIVE_S` is not counted as live any more; it says so when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.gateway.control_document import ControlKind
from stanchion.store.database import Database
from stanchion.store.times import to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

HEARTBEAT_S = 2.0
LIVE_S = 10.0
_FORGET_S = 24 * 3600.0
_POLL_S = 0.01


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a gateway's process serves, as it says itself.

    `group` is the same for the workers of one gateway. `configuration` is the digest of what holds,
    `tried_at_us` when it last began to read the files, and `trouble` why that changed nothing. `known` has
    the names that can be switched by level, and `open_levels` those where names not known come too.
    `upstream` maps the providers' names of models to those that clients use.
    """

    group: str = ""
    configuration: str = ""
    tried_at_us: int = 0
    trouble: str = ""
    known: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    open_levels: tuple[str, ...] = ()
    upstream: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One process that obeys. `versions` by kind; `trust` says for each whether it could be verified.

    `about` is None where it was not asked for.
    """

    id: str
    host: str
    pid: int
    started_at_us: int
    seen_at_us: int
    versions: dict[str, int] = msgspec.field(default_factory=dict)
    trust: dict[str, str] = msgspec.field(default_factory=dict)
    is_gone: bool = False
    about: About | None = None


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Who obeys a version after a wait: `3 of 3 at v381 after 41 ms`."""

    kind: ControlKind
    version: int
    live: int
    obeying: int
    after_ms: float
    missing: tuple[Replica, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every live replica obeys it."""
        return self.obeying == self.live

    def __str__(self) -> str:
        if not self.live:
            return f"no replica is running; v{self.version} is obeyed as soon as one starts"
        return f"{self.obeying} of {self.live} at v{self.version} after {self.after_ms:.0f} ms"


class Replicas:
    """The table of replicas."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def write(self, replica: Replica) -> None:
        """Write a replica's row, whatever it was before."""
        from stanchion.store.tables import gateway_replicas as t

        row = {
            "id": replica.id,
            "host": replica.host,
            "pid": replica.pid,
            "started_at_us": replica.started_at_us,
            "seen_at_us": replica.seen_at_us,
            "versions": msgspec.json.encode(replica.versions).decode(),
            "trust": msgspec.json.encode(replica.trust).decode(),
            "is_gone": replica.is_gone,
            "about": "{}" if replica.about is None else msgspec.json.encode(replica.about).decode(),
        }
        with self._database.write() as connection:
            known = connection.execute(t.update().where(t.c.id == replica.id).values(row))
            if known.rowcount == 0:
                connection.execute(t.insert(), row)
                old = replica.seen_at_us - int(_FORGET_S * 1e6)
                connection.execute(t.delete().where(t.c.seen_at_us < old))

    def all(self, *, with_about: bool = False) -> list[Replica]:
        """Every replica that is remembered, the oldest first."""
        import sqlalchemy as sa

        from stanchion.store.tables import gateway_replicas as t

        columns = [each for each in t.c if with_about or each.name != "about"]
        with self._database.read() as connection:
            rows = connection.execute(sa.select(*columns).order_by(t.c.started_at_us, t.c.id)).all()
        return [_from_row(row) for row in rows]

    def live(self, *, with_about: bool = False) -> list[Replica]:
        """Those that were heard of lately and did not say that they ended."""
        since = to_us(self._clock.now() - timedelta(seconds=LIVE_S))
        found = self.all(with_about=with_about)
        return [each for each in found if not each.is_gone and each.seen_at_us >= since]

    def wait(
        self,
        kind: ControlKind,
        version: int,
        *,
        timeout_s: float,
        since_ns: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Acknowledgement:
        """Wait until every live replica obeys a version, or time is out; `since_ns` is monotonic."""
        while True:
            live = self.live()
            missing = tuple(each for each in live if not _obeys(each, kind, version))
            after_ms = (self._clock.monotonic_ns() - since_ns) / 1e6
            if not missing or after_ms >= timeout_s * 1000:
                return Acknowledgement(
                    kind=kind,
                    version=version,
                    live=len(live),
                    obeying=len(live) - len(missing),
                    after_ms=after_ms,
                    missing=missing,
                )
            sleep(_POLL_S)


def _obeys(replica: Replica, kind: ControlKind, version: int) -> bool:
    is_known = replica.trust.get(kind.value) == "verified"
    return is_known and replica.versions.get(kind.value, -1) >= version


def _from_row(row: sa.Row[Any]) -> Replica:
    fields: dict[str, Any] = dict(row._mapping)
    versions = msgspec.json.decode(fields.pop("versions"), type=dict[str, int])
    trust = msgspec.json.decode(fields.pop("trust"), type=dict[str, str])
    about = fields.pop("about", None)
    said = None if about is None else msgspec.json.decode(about, type=About)
    return Replica(**fields, versions=versions, trust=trust, about=said)
