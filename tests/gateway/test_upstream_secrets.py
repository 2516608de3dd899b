"""Secrets from files and from Vault (the real `hvac` against a loopback server), renewed and never shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vault_server import TOKEN, VaultServer

from stanchion.bootstrap_control import make_upstream_secrets
from stanchion.config import load_settings
from stanchion.core.errors import StanchionError, UnavailableError, UsageError
from stanchion.files.references import Secret
from stanchion.gateway.gateway_file import read_gateway_file
from stanchion.gateway.upstream_secrets import UpstreamSecrets, VaultSettings, VaultSource

pytest.importorskip("hvac", reason="the extra `vault` is not installed here")
KEY = Secret("${vault:secret/llm/openai#api_key}")


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    server = VaultServer()
    server.secrets["llm/openai"] = {"api_key": "planted-value", "n": 1}
    yield server
    server.close()


def secrets_of(vault: VaultServer, **settings: object) -> UpstreamSecrets:
    wanted = {"address": vault.address, "token": Secret(TOKEN), **settings}
    return UpstreamSecrets(vault=lambda: VaultSource(VaultSettings(**wanted)), renew_s=0.02)


def test_a_secret_of_vault_is_read_and_renewed(vault) -> None:
    pool = secrets_of(vault)
    live = pool.track(KEY)
    assert live.reveal() == "planted-value"
    vault.secrets["llm/openai"] = {"api_key": "second"}
    assert live.reveal() == "planted-value"
    pool.renew()
    assert live.reveal() == "second"
    assert vault.renewed == 1
    assert pool.troubles == {}


def test_an_outage_keeps_the_last_value_and_a_deletion_does_not(vault) -> None:
    pool = secrets_of(vault)
    live = pool.track(KEY)
    vault.status = 503
    pool.renew()
    assert live.reveal() == "planted-value"
    assert "vault:secret/llm/openai#api_key" in pool.troubles
    vault.status = 200
    vault.deleted.add("llm/openai")
    pool.renew()
    with pytest.raises(UnavailableError, match="is gone"):
        live.reveal()
    vault.deleted.clear()
    pool.renew()
    assert live.reveal() == "planted-value"


def test_a_token_that_is_refused_ends_the_secret(vault) -> None:
    pool = secrets_of(vault)
    live = pool.track(KEY)
    vault.token = "another"
    pool.renew()
    with pytest.raises(UnavailableError):
        live.reveal()


def test_a_token_file_is_read_anew(vault, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    pool = secrets_of(vault, token=None, token_file=file)
    live = pool.track(KEY)
    vault.token = "rotated"
    file.write_text("rotated")
    vault.secrets["llm/openai"]["api_key"] = "third"
    pool.renew()
    assert live.reveal() == "third"


def test_it_is_renewed_in_the_background(vault) -> None:
    pool = secrets_of(vault)
    live = pool.track(KEY)
    pool.start()
    try:
        vault.secrets["llm/openai"]["api_key"] = "fourth"
        end = time.monotonic() + 10
        while live.reveal() != "fourth":
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        pool.stop()


def test_a_mounted_file_is_renewed(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("one\n")
    pool = UpstreamSecrets()
    live = pool.track(Secret(f"Bearer ${{file:{file}}}"))
    assert live.reveal() == "Bearer one"
    file.write_text("two")
    pool.renew()
    assert live.reveal() == "Bearer two"
    file.unlink()
    pool.renew()
    with pytest.raises(UnavailableError):
        live.reveal()


def test_what_holds_no_reference_stays_as_it_is() -> None:
    plain = Secret("sk-1")
    assert UpstreamSecrets().track(plain) is plain


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("${vault:secret/none#x}", UnavailableError),
        ("${vault:secret/llm/openai#none}", UnavailableError),
        ("${vault:secret/llm/openai#n}", UsageError),
        ("${vault:secret/llm/openai}", UsageError),
        ("${vault:secret/../sys/x#y}", UsageError),
        ("${vault:}", UsageError),
    ],
)
def test_a_reference_that_leads_nowhere_is_told_at_once(vault, text, kind) -> None:
    with pytest.raises(kind):
        secrets_of(vault).track(Secret(text))


def test_no_message_and_no_repr_shows_a_secret(vault) -> None:
    pool = secrets_of(vault)
    live = pool.track(KEY)
    vault.status = 500
    pool.renew()
    said = [repr(live), str(live), f"{live}", str(pool.troubles), repr(pool)]
    with pytest.raises(StanchionError) as caught:
        secrets_of(vault).track(KEY)
    said.append(f"{caught.value!r} {caught.value} {caught.value.__cause__}")
    for secret in ("planted-value", TOKEN):
        assert secret not in " ".join(said)


def test_without_settings_it_says_what_to_set(vault) -> None:
    with pytest.raises(UsageError, match="no Vault here"):
        UpstreamSecrets().track(KEY)
    with pytest.raises(UsageError, match="no token"):
        VaultSource(VaultSettings(address=vault.address))
    with pytest.raises(UsageError, match="no address"):
        VaultSource(VaultSettings(address="", token=Secret("x")))


def test_the_settings_of_vault_are_the_usual_variables(vault, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "VAULT_ADDR": vault.address, "VAULT_TOKEN": TOKEN}
    settings = load_settings(folder=tmp_path, environ=environ)
    assert make_upstream_secrets(settings).track(KEY).reveal() == "planted-value"


def test_a_gateway_file_keeps_these_references_for_later(vault, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    mounted = tmp_path / "key"
    mounted.write_text("mounted")
    file.write_text(
        "providers:\n"
        "  a: {api: openai, base_url: 'https://a.example/v1', key: '${vault:secret/llm/openai#api_key}'}\n"
        f"  b: {{api: openai, base_url: 'https://b.example/v1', key: '$${{file:{mounted}}}'}}\n"
    )
    providers = read_gateway_file(file, env={}).value.providers
    pool = secrets_of(vault)
    assert [pool.track(providers[name].key).reveal() for name in ("a", "b")] == ["planted-value", "mounted"]
