"""The gateway and its control plane together: real requests over HTTP, switched off, let in, kept out."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_server import Records, gateway, live, scripted_models, serve
from starlette.testclient import TestClient

from stanchion.bootstrap_control import make_admin_api, make_admin_plane, make_replica_plane
from stanchion.config import load_settings
from stanchion.core.clock import SortableIds, SystemClock
from stanchion.gateway.actor import Actor
from stanchion.gateway.admin_app import token_path
from stanchion.gateway.feedback import FeedbackDesk, FeedbackSection
from stanchion.gateway.key_acts import KeyWish
from stanchion.gateway.live import Parts
from stanchion.gateway.ports import Outcome
from stanchion.gateway.switch_state import SwitchTarget

ANN, BEN = (Actor(person=name, account=f"{name}@here") for name in ("ann", "ben"))
SLOW = {"default": {"text": "word " * 400}, "delivery": {"chunk_chars": 5, "chunk_delay_ms": 20}}


class Together:
    """One process with data plane, admin plane and admin API on the same state directory."""

    def __init__(self, folder: Path, guard: Any, records: Records) -> None:
        self.settings = load_settings(folder=folder, environ={"HOME": str(folder)})
        self.replica = make_replica_plane(self.settings, is_loopback=True)
        self.plane = make_admin_plane(self.settings, reader=self.replica.reader)
        self.admin = TestClient(make_admin_api(self.settings, self.plane, self.replica))
        desk = FeedbackDesk(
            FeedbackSection(),
            self.plane.database,
            clock=SystemClock(),
            ids=SortableIds(SystemClock()),
        )
        parts = Parts(
            feedback=desk,
            access=self.replica.access,
            switches=self.replica.switches,
            admission=self.replica.admission,
        )
        self.app = gateway(live(scripted_models(SLOW), {"shop": guard}, records, parts=parts))
        self.replica.watch.start()

    def close(self) -> None:
        self.replica.watch.stop()
        self.plane.close()


@pytest.fixture
def together(tmp_path, guard) -> Iterator[tuple[Together, str, Records]]:
    records = Records()
    found = Together(tmp_path, guard, records)
    try:
        with serve(found.app) as served:
            yield found, served.url, records
    finally:
        found.close()


def chat(url: str, *, key: str = "", stream: bool = False) -> tuple[int, str]:
    body = {"model": "scripted", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", data=json.dumps(body).encode(), headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_stream_under_way_ends_and_the_next_request_is_refused(together) -> None:
    found, url, records = together
    answers: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: answers.append(chat(url, stream=True)))
    thread.start()
    end = time.monotonic() + 20
    while not found.replica.switches.following:
        assert time.monotonic() < end
        time.sleep(0.01)
    token = token_path(found.settings.state_dir).read_text()
    done = found.admin.post(
        "/admin/v1/switches/engage",
        json={"target": "feature:shop", "reason": "leaks", "wait_s": 10},
        headers={"authorization": f"Bearer {token}", "stanchion-person": "ann"},
    ).json()
    assert done["acknowledged"]["is_complete"], done
    assert done["acknowledged"]["live"] == 1
    thread.join(20)
    record = records.only()
    assert (record.outcome, record.switch_id) == (Outcome.SWITCHED_OFF, done["answer"]["id"])
    status, said = answers[0]
    assert said.count("word") < 400, status
    status, said = chat(url)
    assert status == 503
    assert "switched_off" in said


@pytest.mark.parametrize("target", ["feature:shop", "global"])
def test_what_went_wrong_is_reported_while_it_is_switched_off(together, target) -> None:
    found, url, records = together
    found.plane.switches.engage(SwitchTarget.parse(target), reason="leaks", actor=ANN)
    assert chat(url)[0] == 503
    records.clear()
    request = urllib.request.Request(
        f"{url}/v1/feedback",
        data=json.dumps({"reference": "req_1", "kind": "leaked"}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202
    assert records.only().outcome is Outcome.ALLOWED
    assert chat(url)[0] == 503


def test_the_first_key_shuts_the_door_for_those_without_one(together) -> None:
    found, url, _ = together
    made = found.plane.keys.new(KeyWish(name="app"), actor=ANN).answer
    assert chat(url)[0] == 401
    found.plane.switches.engage(SwitchTarget.parse("tool:x"), reason="other", actor=ANN)
    found.plane.switches.engage(SwitchTarget.parse("global"), reason="drill", actor=ANN)
    assert chat(url, key=made.secret)[0] == 503
    found.plane.switches.lift(SwitchTarget.parse("global"), reason="over", actor=ANN)
    found.plane.switches.confirm(SwitchTarget.parse("global"), actor=BEN)
    assert chat(url, key=made.secret)[0] == 200
    found.plane.keys.revoke("app", reason="seen in a log", actor=ANN)
    assert chat(url, key=made.secret)[0] == 401
