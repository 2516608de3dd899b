"""A gateway that is started while PostgreSQL is down: what its disk says is obeyed, and nothing hangs."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
import requests_raw
from replica_fleet import KillablePostgres
from running_gateway import STANCHION, Running, running, until

CHAT = "/v1/chat/completions"
GATEWAY = """
listen: 127.0.0.1:0
admin_listen: ""
records: {every_s: 0.1}
providers:
  script: {api: scripted, script: script.yaml}
models:
  m: {provider: script}
  other: {provider: script}
features:
  default: {policy: default}
  first: {policy: default, records: first}
default_feature: default
"""
FILES = {"gateway.yaml": GATEWAY, "script.yaml": "name: s\ndefault: {text: Good day.}\n"}


@pytest.fixture
def postgres():
    server = KillablePostgres()
    yield server
    server.close()


def ask(process: Running, model: str, *, feature: str = "default") -> tuple[int, str]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    status, _, said = requests_raw.post(process.url, f"/features/{feature}{CHAT}", body)
    return status, said.decode()


def ready(process: Running) -> tuple[int, dict]:
    status, _, said = requests_raw.request("GET", process.url, "/readyz")
    return status, json.loads(said)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_restart_without_the_store_obeys_the_disk_and_catches_up_later(tmp_path, postgres, workers):
    made = Running(tmp_path, "--workers", workers, files=FILES, STANCHION_STORE_URL=postgres.url)
    with running(made) as process:
        assert ask(process, "m")[0] == 200
        process.cli("switch", "engage", "model:other", "--reason", "drill", "--wait", "20")
        process.stop()
        postgres.kill()
        process.start()
        assert requests_raw.request("GET", process.url, "/healthz")[0] == 200
        status, said = ready(process)
        assert (status, said["status"]) == (200, "degraded")
        assert "store is away" in said["why"][0]
        assert ask(process, "m")[0] == 200
        status, text = ask(process, "other")
        assert (status, json.loads(text)["error"]["code"]) == (503, "switched_off")
        status, text = ask(process, "m", feature="first")
        assert (status, json.loads(text)["error"]["code"]) == (503, "record_not_written")
        assert "another one starts" not in process.said()
        postgres.start()
        until(lambda: ready(process)[1]["status"] == "ready", seconds=60)
        assert ask(process, "m", feature="first")[0] == 200
        assert ask(process, "other")[0] == 503


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_store_and_state_it_refuses_to_start(tmp_path, postgres, workers):
    postgres.kill()
    made = Running(tmp_path, files=FILES, STANCHION_STORE_URL=postgres.url)
    begun = time.monotonic()
    done = subprocess.run(
        [STANCHION, "serve", "--config", "gateway.yaml", "--workers", workers],
        cwd=tmp_path,
        env=made._environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "PostgreSQL" in done.stderr
    assert time.monotonic() - begun < 50
