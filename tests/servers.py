"""Private PostgreSQL and Redis servers for tests, each on a Unix socket in a folder of its own.

Where the binaries are missing the tests skip with the reason; with STANCHION_REQUIRE_SERVERS=1 they fail.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

_START_WAIT_S = 60
_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class PostgresServer:
    """A running server; each test makes a database of its own."""

    folder: Path

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://stanchion@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The address of a fresh, empty database."""
        import psycopg

        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database of `new_database`, whoever is still connected."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)")


def _name(url: str) -> str:
    return url.rpartition("@/")[2].partition("?")[0]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    initdb, postgres = _postgres_binary("initdb"), _postgres_binary("postgres")
    if initdb is None or postgres is None:
        _missing("PostgreSQL (initdb, postgres)")
    _need_driver("psycopg")
    prefix = _as_unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="stanchion-pg-", dir="/tmp"))
    try:
        _give_to(folder, prefix)
        data = folder / "data"
        how = ["-A", "trust", "-U", "stanchion", "-E", "UTF8", "--locale=C", "--no-sync"]
        _check_run([*prefix, initdb, "-D", str(data), *how], cwd=folder)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": "60",
            "shared_buffers": "32MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with _process([*prefix, postgres, "-D", str(data), *options], folder, stop=signal.SIGQUIT) as process:
            server = PostgresServer(folder)
            _wait_until(lambda: _answers(server), process, folder)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a private Redis server without persistence."""
    binary = shutil.which("redis-server")
    if binary is None:
        _missing("Redis (redis-server)")
    _need_driver("redis")
    folder = Path(tempfile.mkdtemp(prefix="stanchion-redis-", dir="/tmp"))
    socket = folder / "redis.sock"
    options = [
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]
    try:
        with _process([binary, *options], folder, stop=signal.SIGTERM) as process:
            _wait_until(socket.exists, process, folder)
            yield f"unix://{socket}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _process:
    """A child with its output in a file; ended by its own process id at the end of the block."""

    def __init__(self, command: list[str], folder: Path, *, stop: signal.Signals) -> None:
        self._command, self._folder, self._stop = command, folder, stop

    def __enter__(self) -> subprocess.Popen[bytes]:
        with open(self._folder / "server.log", "wb") as log:
            self._child = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self._child

    def __exit__(self, *_: object) -> None:
        self._child.send_signal(self._stop)
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _postgres_binary(name: str) -> str | None:
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True
    )
    found = [folder / name for folder in (*folders, Path("/usr/local/bin")) if (folder / name).exists()]
    return str(found[0]) if found else shutil.which(name)


def _as_unprivileged() -> list[str]:
    """How to run PostgreSQL, which refuses root: as another user where we are root."""
    if os.geteuid() != 0:
        return []
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in _UNPRIVILEGED if name in known), None)
    setpriv = shutil.which("setpriv")
    if user is None or setpriv is None:
        _missing("an unprivileged user and setpriv (PostgreSQL does not run as root)")
    entry = pwd.getpwnam(user)
    return [setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]


def _give_to(folder: Path, prefix: list[str]) -> None:
    if prefix:
        ids = [int(part.partition("=")[2]) for part in prefix[1:3]]
        os.chown(folder, ids[0], ids[1])
    folder.chmod(0o700)


def _check_run(command: list[str], *, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{command} failed: {done.stderr.decode(errors='replace')[-2000:]}")


def _answers(server: PostgresServer) -> bool:
    import psycopg

    try:
        psycopg.connect(server.url(), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _wait_until(is_ready, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + _START_WAIT_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > end:
            log = (folder / "server.log").read_text(errors="replace")
            pytest.fail(f"{process.args[0]} did not start: {log[-2000:]}")
        time.sleep(0.05)


def _need_driver(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        _missing(f"the driver {module}")


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed here"
    if os.environ.get("STANCHION_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{reason}, and STANCHION_REQUIRE_SERVERS=1 demands it")
    pytest.skip(reason)
