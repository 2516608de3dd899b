"""Processes and servers killed with -9 under load, and a full disk: what is lost, held to the bound."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
import time
from pathlib import Path

import pytest
import requests_raw
from gateway_faults import CARD
from replica_fleet import KillablePostgres, KillableRedis
from running_gateway import Running, running, until

CHAT = "/v1/chat/completions"
EVERY_S = 0.5
MARGIN_S = 1.5  # what a batch may take to be written while the machine is busy
SCRIPT = f"name: card\ndefault: {{text: 'It is {CARD}.', usage: {{input_tokens: 3, output_tokens: 5}}}}\n"
GATEWAY = f"""
listen: 127.0.0.1:0
admin_listen: ""
records: {{every_s: {EVERY_S}}}
providers:
  script: {{api: scripted, script: script.yaml}}
models:
  m: {{provider: script}}
"""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Which card?"}]}).encode()


class Load:
    """Clients that ask all the time; `answered` maps references to when their answer was whole."""

    def __init__(self, url: str, *, clients: int = 3) -> None:
        self.url = url
        self.answered: dict[str, float] = {}
        self.refused: list[int] = []
        self.broken = 0
        self.leaked = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                status, headers, said = requests_raw.post(self.url, CHAT, BODY)
            except OSError:
                self.broken += 1
                time.sleep(0.02)
                continue
            except Exception:  # an answer that a killed worker did not finish
                self.broken += 1
                continue
            self.leaked += b"1111 1111" in said  # four ones alone may stand in an id
            if status == 200:
                self.answered[headers["x-stanchion-reference"].partition(".")[0]] = time.monotonic()
            else:
                self.refused.append(status)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def more(self, count: int = 20) -> None:
        """Wait for so many more answers."""
        before = len(self.answered)
        until(lambda: len(self.answered) >= before + count, seconds=90)


def workers_of(process: Running) -> list[int]:
    assert process.process is not None
    pid = process.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def ids(process: Running) -> set[str]:
    return {row["id"] for row in process.rows()}


@pytest.mark.slow
def test_a_full_disk_and_a_worker_killed_under_load_cost_no_more_than_the_bound(tmp_path):
    made = Running(tmp_path, "--workers", "2", files={"gateway.yaml": GATEWAY, "script.yaml": SCRIPT})
    with running(made) as process:
        until(lambda: len(workers_of(process)) == 2, seconds=90)
        with Load(process.url) as load:
            load.more()
            pids = workers_of(process)
            size = (tmp_path / "state" / "stanchion" / "stanchion.db").stat().st_size
            for pid in pids:  # from now on no file may grow beyond what the database has
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (min(size, 40_000), resource.RLIM_INFINITY))
            load.more(60)
            until(lambda: list((tmp_path / "state").rglob("*spill*")), seconds=90)
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            until(lambda: not list((tmp_path / "state").rglob("*spill*")), seconds=90)
            load.more()
            held = descriptors(pids[1])
            killed_at = time.monotonic()
            os.kill(pids[0], signal.SIGKILL)
            load.more(40)
            until(lambda: "ended with -9" in process.said(), seconds=90)
            until(lambda: len(workers_of(process)) == 2, seconds=90)
            load.more()
            assert descriptors(pids[1]) <= held + 3
        process.stop()
    missing = {name: at for name, at in load.answered.items() if name not in ids(process)}
    told = re.findall(r"worker \d ended with -9", process.said())
    assert len(told) == 1
    assert load.leaked == 0
    assert not load.refused
    too_old = [killed_at - at for at in missing.values() if at < killed_at - EVERY_S - MARGIN_S]
    assert not too_old, f"lost {len(missing)} of {len(load.answered)}, some {max(too_old):.2f} s old"
    assert not [at for at in missing.values() if at > killed_at + MARGIN_S]


@pytest.mark.soak
def test_databases_killed_under_load_cost_no_record_and_no_answer(tmp_path):
    import psycopg

    limits = """
limits:
  storage: redis
  redis_url: REDIS
  on_failure: degrade
  rules: [{id: many, requests: 1000000, every: 1h}]
"""
    postgres, redis = KillablePostgres(), KillableRedis()
    try:
        files = {"gateway.yaml": GATEWAY + limits.replace("REDIS", redis.url), "script.yaml": SCRIPT}
        made = Running(tmp_path, "--workers", "2", files=files, STANCHION_STORE_URL=postgres.url)
        with running(made) as process:
            with Load(process.url) as load:
                load.more()
                postgres.kill()
                load.more(40)
                redis.kill()
                load.more(40)
                until(lambda: list((tmp_path / "state").rglob("*spill*")), seconds=90)
                redis.start()
                postgres.start()
                until(lambda: not list((tmp_path / "state").rglob("*spill*")), seconds=90)
                load.more()
            process.stop()
        with psycopg.connect(postgres.url) as connection:
            kept = {row[0] for row in connection.execute("select id from exchanges").fetchall()}
    finally:
        postgres.close()
        redis.close()
    assert load.leaked == 0
    assert not load.refused
    assert load.broken == 0
    assert set(load.answered) <= kept, f"lost {len(set(load.answered) - kept)} of {len(load.answered)}"
