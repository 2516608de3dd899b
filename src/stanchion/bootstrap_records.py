"""Opens the database of a gateway, and what writes the records of its requests."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.core.clock import Clock
from stanchion.store.database import LOCK_WAIT_S, Database, open_database

if TYPE_CHECKING:
    from stanchion.config import Settings
    from stanchion.gateway.gateway_file import GatewayModel
    from stanchion.gateway.record import Recorder

SPILL_FILE = "records.spill.jsonl"


def open_records(
    settings: Settings, model: GatewayModel, undo: ExitStack, *, worker: int, clock: Clock
) -> tuple[Database, Database, Recorder]:
    """The database, the same for the writer of records that nobody waits for, and the recorder.

    `undo` closes both databases when the rest cannot be made.

    Raises:
        UnavailableError: when it cannot be reached, and no state on disk says what to obey meanwhile.
    """
    from stanchion.gateway.record import lock_wait_s

    database = _database(settings)
    undo.callback(database.close)
    behind = _database(settings, lock_wait_s=lock_wait_s(model.records.every_s))
    undo.callback(behind.close)
    return (
        database,
        behind,
        _recorder((behind, database), model, settings.state_dir, worker=worker, clock=clock),
    )


def _database(settings: Settings, *, lock_wait_s: float = LOCK_WAIT_S) -> Database:
    """The database; one that is away is waited for where the disk says what to obey meanwhile."""
    from stanchion.gateway.control_disk import ControlDisk

    waits = ControlDisk(settings.state_dir).has_state()
    return open_database(settings.store_url.reveal(), waits=waits, lock_wait_s=lock_wait_s)


def _recorder(
    databases: tuple[Database, Database], model: GatewayModel, state_dir: Path, *, worker: int, clock: Clock
) -> Recorder:
    """What writes the records, behind and first; each worker spills to a file of its own."""
    from stanchion.gateway.record import Recorder, StoreSink
    from stanchion.store.exchanges import ExchangeStore
    from stanchion.store.interactions import InteractionStore

    behind, first = [StoreSink(InteractionStore(one), ExchangeStore(one)) for one in databases]
    return Recorder(
        behind,
        first=first,
        clock=clock,
        batch=model.records.batch,
        every_s=model.records.every_s,
        most_waiting=model.records.most_waiting,
        spill=state_dir / (SPILL_FILE if worker == 0 else f"{worker}.{SPILL_FILE}"),
    )
