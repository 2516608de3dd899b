"""Three replicas as processes, and servers that may be killed, for tests and for the bench."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import servers

WAIT_S = 20.0


class ReplicaProcess:
    """One replica; `ask` gives its answer, `told` what it said by itself."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("replica_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment,
            text=True,
            bufsize=1,
        )
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert "ready" in self.answers.get(timeout=60)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            said = json.loads(line)
            (self.told if "told" in said else self.answers).put(said)

    def ask(self, line: str) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        return self.answers.get(timeout=WAIT_S)

    def until(self, line: str, **wanted: object) -> dict[str, Any]:
        """Ask again until the answer is as wanted; fails with the last one."""
        end = time.monotonic() + WAIT_S
        while True:
            said = self.ask(line)
            if all(said.get(name) == value for name, value in wanted.items()):
                return said
            assert time.monotonic() < end, said
            time.sleep(0.02)

    def kill(self) -> None:
        self._child.kill()
        self._close()

    def stop(self) -> int:
        """End it as its supervisor would: no more input."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        code = self._child.wait(WAIT_S)
        self._close()
        return code

    def _close(self) -> None:
        self._child.wait(WAIT_S)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def environment(home: Path, *, store_url: str = "", redis_url: str = "") -> dict[str, str]:
    """What a process of this fleet sees: its own home, and nothing of ours."""
    named = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "STANCHION_STORE_URL": store_url,
        "STANCHION_REDIS_URL": redis_url,
    }
    return {name: value for name, value in named.items() if value}


@contextmanager
def replicas(environ: dict[str, str], folder: Path, *, count: int = 3) -> Iterator[list[ReplicaProcess]]:
    with ExitStack() as stack:
        found = [ReplicaProcess(environ, folder) for _ in range(count)]
        for each in found:
            stack.callback(each.kill)
        yield found


def switch(environ: dict[str, str], folder: Path, *words: str) -> dict[str, Any]:
    """`stanchion switch ... --format json` in a process of its own."""
    code = "from stanchion.cli.main import run; run()"
    command = [sys.executable, "-c", code, "switch", *words, "--format", "json"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    said: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return {**said, "exit": done.returncode}


class KillablePostgres:
    """A PostgreSQL of its own that survives being killed, apart from what it had not written."""

    def __init__(self) -> None:
        self._prefix = servers._as_unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix="stanchion-pg-", dir="/tmp"))
        initdb = servers._postgres_binary("initdb")
        if initdb is None:
            servers._missing("PostgreSQL (initdb, postgres)")
        servers._give_to(self.folder, self._prefix)
        how = ["-A", "trust", "-U", "stanchion", "-E", "UTF8", "--locale=C", "--no-sync"]
        servers._check_run([*self._prefix, initdb, "-D", str(self.folder / "data"), *how], cwd=self.folder)
        self.url = servers.PostgresServer(self.folder).url()
        self.start()

    def start(self) -> None:
        postgres = servers._postgres_binary("postgres")
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}"]
        command = [*self._prefix, str(postgres), "-D", str(self.folder / "data"), *options]
        with open(self.folder / "server.log", "ab") as log:
            self._child = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        server = servers.PostgresServer(self.folder)
        servers._wait_until(lambda: servers._answers(server), self._child, self.folder)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGQUIT)
            self._child.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


class KillableRedis:
    """A Redis of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stanchion-redis-", dir="/tmp"))
        self._socket = self.folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            servers._missing("Redis (redis-server)")
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self.folder)]
        self._socket.unlink(missing_ok=True)
        with open(self.folder / "server.log", "ab") as log:
            self._child = subprocess.Popen([binary, *options], cwd=self.folder, stdout=log, stderr=log)
        servers._wait_until(self._socket.exists, self._child, self.folder)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.terminate()
            self._child.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
