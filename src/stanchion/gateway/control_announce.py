"""Telling replicas that there is a new document: this process, this host, Redis.

PostgreSQL is told within the transaction itself (see `control_store`). None of these is needed for a replica
to hear of it, because each also asks the database once a second; they are what makes it quick. A way that
does not work is reported and stops nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from stanchion.core.clock import Clock
from stanchion.core.errors import StanchionError
from stanchion.gateway.control_disk import ControlDisk, Mark
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.control_reader import ControlReader
from stanchion.gateway.control_store import Published
from stanchion.gateway.redis_driver import redis_driver
from stanchion.store.times import to_us

REDIS_CHANNEL = "stanchion:control"
REDIS_WAIT_S = 1.0
MAX_DATAGRAM_BYTES = 60_000  # far below the usual send buffer of 212,992 bytes (socket(7), wmem_default)
_SET_IF_NEWER = """
local known = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1')
if tonumber(ARGV[1]) > known then
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'envelope', ARGV[2])
end
return redis.call('PUBLISH', KEYS[2], ARGV[3] .. '\\n' .. ARGV[2])
"""


class Way(Protocol):
    """One way of telling replicas."""

    name: str

    def tell(self, kind: ControlKind, version: int, envelope: bytes) -> None:
        """Pass a document on.

        Raises:
            OSError: when it could not be.
            StanchionError: likewise.
        """
        ...


class InProcess:
    """The replica in this very process."""

    name = "this process"

    def __init__(self, reader: ControlReader) -> None:
        self._reader = reader

    def tell(self, kind: ControlKind, version: int, envelope: bytes) -> None:
        """Offer it; the signature is checked as everywhere."""
        self._reader.offer(kind, envelope, source="in-process", is_authority=True)


class ThisHost:
    """The replicas on this host: the document on disk, and a datagram to each to look at it."""

    name = "this host"

    def __init__(self, disk: ControlDisk, *, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock

    def tell(self, kind: ControlKind, version: int, envelope: bytes) -> None:
        """Send a small document along with the nudge, before it is on disk; of a large one only word."""
        mark = Mark(version=version, seen_at_us=to_us(self._clock.now()))
        folder, is_small = nudge_folder(self._disk), len(envelope) <= MAX_DATAGRAM_BYTES
        if is_small:
            nudge(folder, kind, envelope)
        self._disk.store(kind, envelope, mark=mark)
        if not is_small:
            nudge(folder, kind)


class RedisWay:
    """The replicas that listen to one Redis; the newest document also stays there."""

    name = "Redis"

    def __init__(self, url: str) -> None:
        self._url = url

    def tell(self, kind: ControlKind, version: int, envelope: bytes) -> None:
        """Keep it if it is newer, and publish it."""
        try:
            with redis_client(self._url) as client:
                keys = (redis_key(kind), REDIS_CHANNEL)
                client.eval(_SET_IF_NEWER, 2, *keys, version, envelope, kind.value)
        except redis_driver().RedisError as error:
            raise OSError(f"{type(error).__name__}") from None  # its text may hold the address


def announcer(ways: list[Way]) -> Callable[[Published], list[str]]:
    """What tells all of these ways, and gives a line for each that did not work."""

    def announce(published: Published) -> list[str]:
        if published.envelope is None:
            return []
        troubles = []
        for way in ways:
            try:
                way.tell(published.kind, published.version, published.envelope)
            except (OSError, StanchionError) as error:
                troubles.append(f"{way.name}: {error}")
        return troubles

    return announce


def redis_key(kind: ControlKind) -> str:
    """The hash that holds the newest document of a kind."""
    return f"stanchion:control:{kind.value}"


def redis_client(url: str) -> Any:
    """A client with short deadlines.

    Raises:
        MissingExtraError: without the driver.
    """
    return redis_driver().Redis.from_url(
        url, socket_timeout=REDIS_WAIT_S, socket_connect_timeout=REDIS_WAIT_S, protocol=3
    )


# --- nudges on one host ---------------------------------------------------------------------------------


def nudge_folder(disk: ControlDisk) -> Path:
    """Where the replicas of this host listen."""
    return disk.folder / "nudge"


def nudge(folder: Path, kind: ControlKind, envelope: bytes = b"") -> int:
    """Send a datagram to every replica of this host; gives how many took it. Dead sockets are removed."""
    if not folder.is_dir():
        return 0
    told, message = 0, kind.value.encode() + b"\n" + envelope
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        for path in folder.glob("*.sock"):
            try:
                with short_path(path) as address:
                    sender.sendto(message, address)
                told += 1
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue  # full: a nudge is waiting there already
    return told


def listen_for_nudges(folder: Path, name: str) -> socket.socket:
    """A socket on which a replica hears nudges; close it, and remove `NAME.sock`, at the end.

    Raises:
        OSError: when it cannot be made; the replica then looks at the file often instead.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        with short_path(folder / f"{name}.sock") as address:
            listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """An address for a socket in a folder of any depth; sun_path holds 108 bytes only (unix(7))."""
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
