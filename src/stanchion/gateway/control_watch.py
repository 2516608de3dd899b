"""The threads by which a replica hears of new documents, and tells which ones it obeys.

This host (datagrams, and a look at the file four times a second), PostgreSQL's NOTIFY, Redis pub/sub, and a
poll of the database once a second that closes every gap. Each runs in a thread of its own, so that one store
that hangs keeps no other from being heard. What fails is tried again and told in `troubles`.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.errors import MissingExtraError, StanchionError, UnavailableError
from stanchion.gateway.control_announce import (
    MAX_DATAGRAM_BYTES,
    REDIS_CHANNEL,
    listen_for_nudges,
    nudge_folder,
    redis_client,
    redis_key,
)
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.control_reader import ControlReader, Trust
from stanchion.gateway.control_store import CHANNEL, ControlStore
from stanchion.gateway.redis_driver import redis_driver
from stanchion.gateway.replicas import HEARTBEAT_S, About, Replica, Replicas
from stanchion.gateway.switches import SwitchBoard
from stanchion.store.times import to_us

POLL_S = 1.0
FILE_LOOK_S = 0.25
FILE_LOOK_WITHOUT_NUDGES_S = 0.02
_NOTE_TIME_S = 5.0
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0)


class WatchSources(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen; `connect` opens the database, and is called again until it answers.

    Without `connect` this host has no database, and the file in the state directory is the authority.
    """

    connect: Callable[[], ControlStore] | None = None
    postgres_url: str = ""
    redis_url: str = ""


class ControlWatch:
    """Keeps a ControlReader up to date; `start` before requests are served, `stop` at the end."""

    def __init__(
        self, reader: ControlReader, board: SwitchBoard, sources: WatchSources, *, clock: Clock, ids: Ids
    ) -> None:
        self._reader, self._board, self._sources, self._clock = reader, board, sources, clock
        now_us = to_us(clock.now())
        self.replica = Replica(
            id=ids.new("replica"),
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at_us=now_us,
            seen_at_us=now_us,
        )
        self.troubles: dict[str, str] = {}
        self._store: ControlStore | None = None
        self._connecting = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stamps: dict[ControlKind, tuple[int, int]] = {}
        reader.on_changed(self._wake.set)

    def start(self) -> None:
        """Load the disk, ask the database once, then listen.

        A database that does not answer is no error: what the disk holds is obeyed, and without that the
        replica fails closed until the database answers.
        """
        self._reader.load()
        self._guarded("database", self._poll_database)
        self._guarded("heartbeat", self._beat)
        loops: list[tuple[str, Callable[[], None]]] = [("host", self._host_loop)]
        if self._sources.connect is not None:
            loops.append(("database", self._database_loop))
        if self._sources.postgres_url:
            loops.append(("postgresql", self._postgres_loop))
        if self._sources.redis_url:
            loops.append(("redis", self._redis_loop))
        for name, loop in loops:
            thread = threading.Thread(target=loop, name=f"stanchion-control-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def tell(self, about: About) -> None:
        """Say to the others what this process serves from now on, as soon as the database takes it."""
        self.replica = msgspec.structs.replace(self.replica, about=about)
        self._wake.set()

    def stop(self) -> None:
        """End the threads and say goodbye; a store that hangs is left behind after a few seconds."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(3.0)
        if self._store is not None:
            if "database" not in self.troubles:
                self._guarded("heartbeat", lambda: self._beat(is_gone=True))
            self._store.database.close()

    # --- this host -----------------------------------------------------------------------------------------

    def _host_loop(self) -> None:
        folder, name = nudge_folder(self._reader.disk), self.replica.id
        try:
            listener: socket.socket | None = listen_for_nudges(folder, name)
        except OSError as error:
            self.troubles["nudge"] = f"{type(error).__name__}: looking at the file often instead"
            listener = None
        look_s = FILE_LOOK_WITHOUT_NUDGES_S if listener is None else FILE_LOOK_S
        noted_ns = self._clock.monotonic_ns()
        try:
            while not self._stopping.is_set():
                self._look_at_files()
                self._board.expire()
                if self._clock.monotonic_ns() - noted_ns > _NOTE_TIME_S * 1e9 and self._board.state.leases:
                    noted_ns = self._clock.monotonic_ns()
                    self._reader.note_time()
                self._wait_for_nudge(listener, look_s)
        finally:
            if listener is not None:
                listener.close()
                (folder / f"{name}.sock").unlink(missing_ok=True)

    def _wait_for_nudge(self, listener: socket.socket | None, look_s: float) -> None:
        end_s = self._board.seconds_to_next_end()
        timeout = look_s if end_s is None else min(look_s, end_s)
        if listener is None:
            self._stopping.wait(timeout)
        elif select.select([listener], [], [], timeout)[0]:
            name, _, envelope = listener.recv(2 * MAX_DATAGRAM_BYTES).partition(b"\n")
            kind = name.decode("ascii", "replace")
            if envelope and kind in set(ControlKind):
                self._reader.offer(ControlKind(kind), envelope, source="this host")

    def _look_at_files(self) -> None:
        for kind in ControlKind:
            stamp = self._reader.disk.stamp(kind)
            if stamp == self._stamps.get(kind):
                continue
            self._stamps[kind] = stamp
            found = self._reader.disk.load(kind).envelope
            if found is not None:
                is_authority = self._sources.connect is None
                self._reader.offer(kind, found, source="file", is_authority=is_authority)
            if found != self._reader.envelope(kind):
                self._reader.repair(kind)

    # --- the database --------------------------------------------------------------------------------------

    def _database_loop(self) -> None:
        beaten_ns = self._clock.monotonic_ns()
        while not self._stopping.is_set():
            has_news = self._wake.wait(POLL_S)
            self._wake.clear()
            if self._stopping.is_set():
                return
            if has_news or self._clock.monotonic_ns() - beaten_ns >= HEARTBEAT_S * 1e9:
                beaten_ns = self._clock.monotonic_ns()
                self._guarded("heartbeat", self._beat)
            if not has_news:
                self._guarded("database", self._poll_database)

    def _connected(self) -> ControlStore | None:
        if self._sources.connect is None:
            return None
        with self._connecting:
            if self._store is None:
                self._store = self._sources.connect()
            return self._store

    def _poll_database(self) -> None:
        store = self._connected()
        if store is None:
            return
        versions = store.versions()
        for kind in ControlKind:
            standing = self._reader.standing(kind)
            newest = versions.get(kind)
            if newest is None:
                self._reader.absent(kind, source="database")
            elif newest != standing.version or standing.trust is not Trust.VERIFIED:
                self._fetch(kind, source="database")
            else:
                self._reader.heard(kind, source="database")

    def _fetch(self, kind: ControlKind, *, source: str) -> None:
        store = self._connected()
        found = None if store is None else store.envelope(kind)
        if found is not None:
            self._reader.offer(kind, found, source=source, is_authority=True)

    def _beat(self, *, is_gone: bool = False) -> None:
        store = self._connected()
        if store is None:
            return
        standings = [self._reader.standing(kind) for kind in ControlKind]
        replica = msgspec.structs.replace(
            self.replica,
            seen_at_us=to_us(self._clock.now()),
            versions={each.kind.value: each.version for each in standings},
            trust={each.kind.value: each.trust.value for each in standings},
            is_gone=is_gone,
        )
        Replicas(store.database, clock=self._clock).write(replica)

    def _guarded(self, source: str, step: Callable[[], None]) -> bool:
        """Do a step; what fails outside becomes a line in `troubles`."""
        try:
            step()
        except (StanchionError, OSError) as error:
            self.troubles[source] = str(error)
            return False
        self.troubles.pop(source, None)
        return True

    # --- PostgreSQL and Redis ------------------------------------------------------------------------------

    def _postgres_loop(self) -> None:
        self._retry("postgresql", self._listen_to_postgres)

    def _listen_to_postgres(self) -> None:
        import psycopg

        try:
            with psycopg.connect(self._sources.postgres_url, autocommit=True, connect_timeout=5) as listening:
                listening.execute(f"LISTEN {CHANNEL}")
                self._poll_database()  # what was said before we listened
                self.troubles.pop("postgresql", None)
                while not self._stopping.is_set():
                    for notice in listening.notifies(timeout=1.0):
                        kind, _, version = notice.payload.partition(" ")
                        if kind in set(ControlKind) and not self._has(ControlKind(kind), version):
                            self._fetch(ControlKind(kind), source="postgresql")
        except psycopg.Error as error:
            raise UnavailableError(f"PostgreSQL's notices stopped ({type(error).__name__}).") from None

    def _has(self, kind: ControlKind, version: str) -> bool:
        """Whether another way was quicker."""
        standing = self._reader.standing(kind)
        return standing.trust is Trust.VERIFIED and version == str(standing.version)

    def _redis_loop(self) -> None:
        self._retry("redis", self._listen_to_redis)

    def _listen_to_redis(self) -> None:
        with redis_client(self._sources.redis_url) as client:
            try:
                self._hear_redis(client)
            except redis_driver().RedisError as error:
                raise UnavailableError(f"Redis stopped ({type(error).__name__}).") from None

    def _hear_redis(self, client: Any) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as listening:
            listening.subscribe(REDIS_CHANNEL)
            for kind in ControlKind:  # what was said before we listened
                found = client.hget(redis_key(kind), "envelope")
                if found is not None:
                    self._reader.offer(kind, found, source="redis")
            self.troubles.pop("redis", None)
            while not self._stopping.is_set():
                message = listening.get_message(timeout=0.5)
                if message is None or not isinstance(message.get("data"), bytes):
                    continue
                name, _, envelope = message["data"].partition(b"\n")
                if name.decode("ascii", "replace") in set(ControlKind):
                    self._reader.offer(ControlKind(name.decode()), envelope, source="redis")

    def _retry(self, source: str, listen: Callable[[], None]) -> None:
        """Listen until the end; after a failure wait, a little longer each time."""
        failures = 0
        while not self._stopping.is_set():
            begun_ns = self._clock.monotonic_ns()
            try:
                listen()
            except MissingExtraError as error:
                self.troubles[source] = str(error)
                return
            except (StanchionError, OSError) as error:
                self.troubles[source] = str(error)
            if self._clock.monotonic_ns() - begun_ns > 10e9:
                failures = 0
            self._stopping.wait(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1
