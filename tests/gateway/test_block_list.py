"""The block list holds for every gateway: with and without limits, by key, user and tenant."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from flow_fixtures import facts
from running_gateway import SCRIPT, Running

from stanchion.core.clock import SystemClock
from stanchion.gateway.penalties import BlockList
from stanchion.gateway.ports import Refused
from stanchion.store.database import open_database

GATEWAY = """
listen: 127.0.0.1:0
admin_listen: ""
providers: {script: {api: scripted, script: script.yaml}}
models: {demo: {provider: script}}
features: {default: {policy: default}}
"""


def test_a_caller_is_found_by_key_user_and_tenant(tmp_path: Path):
    who = facts(key_id="key_a", user_key="user_b", tenant="acme")
    with open_database(tmp_path / "b.db") as database:
        blocks = BlockList(database, clock=SystemClock())
        blocks.check(who)
        for subject in ("key:key_a", "user:user_b", "tenant:acme"):
            blocks.block(subject, seconds=60, reason="test", by="ann")
            with pytest.raises(Refused) as caught:
                blocks.check(who)
            assert (caught.value.code, caught.value.status) == ("caller_blocked", 403)
            assert 0 < caught.value.retry_after_s <= 60
            blocks.check(facts(key_id="key_z", user_key="user_z", tenant="other"))
            blocks.unblock(subject, by="ann", reason="test")
            blocks.check(who)


def test_a_gateway_without_limits_obeys_it(tmp_path: Path):
    running = Running(tmp_path, files={"gateway.yaml": GATEWAY, "script.yaml": SCRIPT})
    running.cli("limits", "block", "key:local", "--reason", "test")
    try:
        running.start()
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="k", max_retries=0) as client:

            def is_blocked() -> bool:
                try:
                    client.chat.completions.create(
                        model="demo", messages=[{"role": "user", "content": "Hello"}]
                    )
                except openai.PermissionDeniedError as error:
                    return "blocked" in str(error)
                return False

            assert is_blocked(), "it is known before the first request"
            running.cli("limits", "unblock", "key:local", "--reason", "test")
            _until(lambda: not is_blocked())
            running.cli("limits", "block", "key:local", "--reason", "test")
            _until(is_blocked)
    finally:
        running.stop()


def _until(condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
