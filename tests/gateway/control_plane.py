"""A control plane on one host for tests: the database, a writer, and replicas that may be restarted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stanchion.core.clock import Clock, CountingIds, SortableIds, SystemClock
from stanchion.gateway.actor import Actor
from stanchion.gateway.control_announce import ThisHost, announcer
from stanchion.gateway.control_disk import ControlDisk
from stanchion.gateway.control_keys import load_signing_key, trusted_folder, trusted_keys
from stanchion.gateway.control_reader import ControlReader
from stanchion.gateway.control_store import ControlStore
from stanchion.gateway.control_watch import ControlWatch, WatchSources
from stanchion.gateway.ports import ApiSurface, RequestFacts
from stanchion.gateway.switch_acts import SwitchActs
from stanchion.gateway.switches import SwitchBoard
from stanchion.store.database import Database, open_database

ANN, BEN, EVE = (Actor(person=name, account=f"{name}@here") for name in ("ann", "ben", "eve"))


def facts(**fields: object) -> RequestFacts:
    """A request; everything else is as usual."""
    return RequestFacts(**{"id": "req_1", "surface": ApiSurface.OPENAI_CHAT, **fields})


class Plane:
    """The admin plane of a host with its state directory."""

    def __init__(self, folder: Path, *, clock: Clock | None = None, url: str = "") -> None:
        self.state_dir = folder / "state"
        self.clock = clock or SystemClock()
        self.url = url or f"sqlite:///{folder / 'records.db'}"
        self.disk = ControlDisk(self.state_dir)
        self.database: Database = open_database(self.url)
        self.store = ControlStore(
            self.database,
            clock=self.clock,
            trusted=self.trusted,
            key=lambda: load_signing_key(self.state_dir),
            disk=self.disk,
        )
        self.announce = announcer([ThisHost(self.disk, clock=self.clock)])
        self.acts = SwitchActs(self.store, clock=self.clock, ids=CountingIds(), announce=self.announce)

    def trusted(self):
        return trusted_keys((trusted_folder(self.state_dir),))

    def connect(self) -> ControlStore:
        """The data plane's view of the database: it cannot sign."""
        return ControlStore(open_database(self.url), clock=self.clock, trusted=self.trusted)

    def reader(self, *, has_database: bool = True) -> ControlReader:
        return ControlReader(self.disk, trusted=self.trusted, clock=self.clock, has_database=has_database)

    def board(self) -> tuple[ControlReader, SwitchBoard]:
        """A replica without threads, as it is after its start."""
        reader = self.reader()
        board = SwitchBoard(reader, clock=self.clock)
        reader.load()
        return reader, board

    @contextmanager
    def replica(self, **sources: object) -> Iterator[tuple[SwitchBoard, ControlWatch]]:
        """A replica with its threads."""
        reader = self.reader()
        board = SwitchBoard(reader, clock=self.clock)
        named = WatchSources(**{"connect": self.connect, **sources})
        watch = ControlWatch(reader, board, named, clock=self.clock, ids=SortableIds(self.clock))
        watch.start()
        try:
            yield board, watch
        finally:
            watch.stop()

    def close(self) -> None:
        self.database.close()
