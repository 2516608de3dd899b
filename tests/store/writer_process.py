"""A process that opens a database and appends; it waits for a line on stdin before the part that is raced."""

import subprocess
import sys

from stanchion.core.clock import SystemClock
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database


def race(url: str, *, raced: str, processes: int, appends: int) -> list[int]:
    """Run several of these at once, all let go at the same moment; their exit codes."""
    command = [sys.executable, __file__, url, raced, str(appends)]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([*command, str(worker)], stdin=pipe, stdout=pipe, text=True)
        for worker in range(processes)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    codes = []
    for process in running:
        process.communicate(timeout=120)
        codes.append(process.returncode)
    return codes


def main(url: str, raced: str, appends: int, worker: int) -> None:
    if raced == "open":
        _wait()
    with open_database(url, lock_wait_s=60) as database:
        log = AuditLog(database, clock=SystemClock())
        if raced == "append":
            _wait()
        for n in range(appends):
            log.append("test.entry", {"worker": worker, "n": n})


def _wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
