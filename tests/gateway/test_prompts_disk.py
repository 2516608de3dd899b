"""The last prompts on disk: served after a start without the store, and only when they are what was kept."""

from __future__ import annotations

import json
import stat

import pytest
import requests_raw
from replica_fleet import KillablePostgres
from running_gateway import Running, running, until

from stanchion.core.clock import ManualClock
from stanchion.core.codec import digest_text
from stanchion.core.errors import UnavailableError
from stanchion.core.signatures import key_id, new_key
from stanchion.gateway.ports import Refused
from stanchion.gateway.prompts_disk import PromptDisk
from stanchion.gateway.prompts_registry import PromptsSection, PromptStore, make_prompts
from stanchion.store.database import open_database


class Away(PromptStore):
    """A store that can be switched off."""

    is_away = False

    def state(self):
        if self.is_away:
            raise UnavailableError("the database is away.")
        return super().state()


@pytest.fixture
def store(tmp_path):
    with open_database(tmp_path / "records.db") as database:
        yield Away(database, clock=ManualClock())


@pytest.fixture
def disk(tmp_path):
    return PromptDisk(tmp_path / "state", source="the database")


def started(store, disk, section=None, **more):
    """A gateway that starts now, on this disk."""
    return make_prompts(section or PromptsSection(), store, kept=disk, **more)


def away(store):
    store.is_away = True
    return store


def test_without_the_store_the_last_state_is_served_and_replaced_when_it_is_back(store, disk):
    store.add("support", "one", by="ann", label="prod")
    assert not started(store, disk).is_from_disk
    assert stat.S_IMODE(disk.path.stat().st_mode) == 0o600
    registry = started(away(store), disk)
    assert registry.is_from_disk
    assert registry.resolve("support@prod").text == "one"
    with pytest.raises(UnavailableError):
        registry.load()
    assert registry.resolve("support@v1").text == "one"
    store.is_away = False
    store.add("support", "two", by="ann", label="prod")
    registry.load()
    assert (registry.is_from_disk, registry.resolve("support@prod").text) == (False, "two")
    assert started(away(store), disk).resolve("support@prod").text == "two"


def test_an_empty_registry_is_a_state_too(store, disk):
    started(store, disk)
    registry = started(away(store), disk)
    with pytest.raises(Refused):
        registry.resolve("support@prod")


def test_without_store_and_disk_there_is_no_start(store, disk):
    with pytest.raises(UnavailableError, match="the database is away"):
        started(away(store), disk)
    with pytest.raises(UnavailableError):
        make_prompts(PromptsSection(), store)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"kindly", b"rudely"),
        lambda data: data.replace(b'"label":"prod"', b'"label":"test"'),
        lambda data: data[:-20],
        lambda data: b"",
        lambda data: b"\xff" + data,
        lambda data: data.replace(b'"source":"the database"', b'"source":"another one!"'),
    ],
)
def test_a_state_that_was_changed_is_not_served(store, disk, change):
    store.add("support", "Answer kindly.", by="ann", label="prod")
    started(store, disk)
    data = disk.path.read_bytes()
    assert change(data) != data
    disk.path.write_bytes(change(data))
    with pytest.raises(UnavailableError, match="cannot stand in"):
        started(away(store), disk)


def test_a_text_that_does_not_match_its_digest_is_refused_even_under_a_right_seal(store, disk):
    store.add("support", "Answer kindly.", by="ann", label="prod")
    state = store.state()
    disk.store(type(state)(versions=(_forged(state.versions[0]),), labels=state.labels))
    registry = started(away(store), disk)
    with pytest.raises(Refused):
        registry.resolve("support@prod")
    assert "does not match its digest" in registry.refused["support@prod"]


def _forged(version):
    return type(version)(
        **{name: getattr(version, name) for name in version.__struct_fields__ if name != "text"}, text="Lie."
    )


def test_pins_and_signatures_hold_for_what_the_disk_says(store, disk):
    key = new_key()
    trusted = {key_id(key.public_key()): key.public_key()}
    store.add("signed", "one", by="ann", label="prod", key=key)
    store.add("bare", "two", by="ann", label="prod")
    started(store, disk)
    registry = started(away(store), disk, PromptsSection(require_signed=True), keys=trusted)
    assert registry.resolve("signed@prod").text == "one"
    with pytest.raises(Refused):
        registry.resolve("bare@prod")
    pinned = PromptsSection(pins={"bare@prod": digest_text("another")})
    with pytest.raises(Refused):
        started(store, disk, pinned).resolve("bare@prod")


def test_prompts_of_another_store_are_not_served(store, disk, tmp_path):
    store.add("support", "one", by="ann", label="prod")
    started(store, disk)
    with pytest.raises(UnavailableError, match="the database is away"):
        started(away(store), PromptDisk(tmp_path / "state", source="another database"))


def test_a_disk_that_cannot_be_written_keeps_no_prompt_from_being_served(store, tmp_path):
    (tmp_path / "file").write_text("no folder")
    store.add("support", "one", by="ann", label="prod")
    registry = started(store, PromptDisk(tmp_path / "file", source="the database"))
    assert registry.resolve("support@prod").text == "one"


def test_the_file_is_written_only_when_something_changed(store, disk):
    store.add("support", "one", by="ann", label="prod")
    registry = started(store, disk)
    before = disk.path.stat().st_ino
    registry.load()
    assert disk.path.stat().st_ino == before
    store.add("support", "two", by="ann")
    registry.load()
    assert disk.path.stat().st_ino != before


GATEWAY = """
listen: 127.0.0.1:0
admin_listen: ""
prompts: {}
providers:
  script: {api: scripted, script: script.yaml}
models:
  m: {provider: script}
features:
  default: {policy: none}
default_feature: default
"""
FILES = {"gateway.yaml": GATEWAY, "script.yaml": "name: s\ndefault: {text: Good day.}\n"}


def ask(process: Running, prompt: str) -> int:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    headers = [*requests_raw.JSON, ("x-stanchion-prompt", prompt)]
    return requests_raw.post(process.url, "/v1/chat/completions", body, headers=headers)[0]


def ready(process: Running) -> dict:
    return json.loads(requests_raw.request("GET", process.url, "/readyz")[2])


def test_a_gateway_that_starts_without_its_postgresql_serves_the_prompts_it_had(tmp_path):
    postgres = KillablePostgres()
    try:
        made = Running(tmp_path, files=FILES, STANCHION_STORE_URL=postgres.url)
        (tmp_path / "one.txt").write_text("You help with orders.")
        with running(made) as process:
            process.cli("prompts", "add", "support", "one.txt", "--label", "prod", "--as", "ann")
            until(lambda: ask(process, "support@prod") == 200, seconds=30)
            process.stop()
            postgres.kill()
            process.start()
            said = ready(process)
            assert said["status"] == "degraded"
            assert said["prompts_from_disk"] is True
            assert ask(process, "support@prod") == 200
            assert ask(process, "support@other") == 404
            postgres.start()
            until(lambda: "prompts_from_disk" not in ready(process), seconds=60)
            assert ask(process, "support@prod") == 200
    finally:
        postgres.close()
