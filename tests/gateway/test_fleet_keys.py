"""Several hosts, as the deployment files have them: state directories apart, one folder of keys for all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import requests_raw
from replica_fleet import KillablePostgres
from running_gateway import Running, running, until

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}).encode()
FILES = {
    "gateway.yaml": """
listen: 127.0.0.1:0
admin_listen: ""
records: {every_s: 0.1}
providers:
  script: {api: scripted, script: script.yaml}
models:
  m: {provider: script}
  other: {provider: script}
""",
    "script.yaml": "name: s\ndefault: {text: Good day.}\n",
}


@pytest.fixture
def postgres():
    server = KillablePostgres()
    yield server
    server.close()


def host(tmp_path: Path, name: str, *options: str, **variables: str) -> Running:
    (tmp_path / name).mkdir()
    return Running(tmp_path / name, *options, files=FILES, **variables)


def ask(process: Running, *, key: str = "") -> tuple[int, str]:
    bearer = [("authorization", f"Bearer {key}")] if key else []
    status, _, said = requests_raw.post(
        process.url, CHAT, BODY, headers=[("content-type", "application/json"), *bearer]
    )
    return status, said.decode()


def test_two_hosts_with_one_folder_of_keys_obey_one_switch_and_know_one_key(tmp_path, postgres):
    shared = {"STANCHION_STORE_URL": postgres.url, "STANCHION_FLEET_DIR": str(tmp_path / "fleet")}
    admin = host(tmp_path, "admin", **shared)
    admin.cli("switch", "keys", "--export", str(tmp_path / "fleet"))
    names = {path.name for path in (tmp_path / "fleet").iterdir()}
    assert {"ids.key", "key-pepper"} < names
    assert not [p for p in (tmp_path / "fleet").iterdir() if b"PRIVATE" in p.read_bytes()]
    with running(host(tmp_path, "a", **shared)) as a, running(host(tmp_path, "b", **shared)) as b:
        for each in (a, b):
            assert ask(each)[0] == 200
        said = admin.cli("switch", "engage", "global", "--reason", "drill", "--wait", "20")
        assert "obeyed   2 of 2" in said
        for each in (a, b):
            status, text = ask(each)
            assert status == 503
            assert "switched_off" in text
        listed = admin.cli("switch", "list")
        assert "NOT OBEYING" not in listed
        assert "failed" not in listed
        admin.cli("switch", "lease", "tool:x", "--for", "1h", "--reason", "drill")
        made = json.loads(admin.cli("access-keys", "new", "shop", "--tenant", "Acme Ltd", "--format", "json"))
        for each in (a, b):
            until(lambda each=each: ask(each)[0] == 401)
            until(lambda each=each: ask(each, key=made["secret"])[0] == 503)
        tenant = json.loads(admin.cli("access-keys", "list", "--format", "json"))["keys"][0]["tenant"]
        assert tenant.startswith("tenant_")
        # a host that only obeys cannot sign, and what it would sign is not trusted
        a.cli("switch", "engage", "model:m", "--reason", "x", code=2)
        a.cli("switch", "keys", "--new")
        a.cli("switch", "engage", "model:m", "--reason", "x", code=2)
        assert "failed" not in admin.cli("switch", "list")


def test_a_public_key_in_the_state_directory_is_not_trusted_beside_a_fleets_folder(tmp_path):
    from stanchion.bootstrap_control import trusted_of
    from stanchion.config import load_settings
    from stanchion.gateway.control_keys import load_signing_key
    from stanchion.gateway.fleet_keys import export_fleet

    export_fleet(tmp_path / "admin", tmp_path / "fleet")
    load_signing_key(tmp_path / "here")
    environ = {"STANCHION_STATE_DIR": str(tmp_path / "here"), "HOME": str(tmp_path)}
    assert len(trusted_of(load_settings(environ=environ, folder=tmp_path))) == 1
    pinned = trusted_of(
        load_settings(environ={**environ, "STANCHION_FLEET_DIR": str(tmp_path / "fleet")}, folder=tmp_path)
    )
    assert [f"{name}.pem" for name in pinned] == [p.name for p in (tmp_path / "fleet").glob("*.pem")]
    with pytest.raises(Exception, match="another fleet"):
        export_fleet(tmp_path / "other", tmp_path / "fleet")
    os.chmod(tmp_path / "fleet" / "key-pepper", 0o444)
    from stanchion.gateway.fleet_keys import fleet_pepper

    with pytest.raises(Exception, match="everybody"):
        fleet_pepper(tmp_path / "fleet")
