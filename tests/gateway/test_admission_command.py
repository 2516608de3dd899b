"""`stanchion admission` beside a gateway that serves: what it shows is what the gateway does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from running_gateway import Running, running, until
from section_files import ask, detail, made, safety

pytestmark = pytest.mark.xdist_group("gateway-sections")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gated")
    with running(made(folder, files=safety(folder))) as run:
        yield run


def ask_refused(run: Running, feature: str) -> str:
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(run, feature)
    assert refused.value.code == "not_admitted"
    return str(refused.value.response.headers["x-request-id"])


def test_the_command_shows_what_the_gateway_decides_and_who_signed_the_list(gated: Running) -> None:
    blocked = ask_refused(gated, "shop")
    reference = ask(gated, "chat").headers["x-request-id"]
    for each in (blocked, reference):
        detail(gated, each)
    config = ("--config", "gateway.yaml")
    out = gated.cli("admission", "show", blocked, *config, code=1)
    assert "shop: sha256:" in out
    assert "UNGATED  a gateway refuses it (403, not_admitted)" in out
    assert "org.yaml says block" in out
    assert "answers it and warns" in gated.cli("admission", "show", reference, *config, code=1)
    said = gated.cli("admission", "add", blocked, "--feature", "shop", "--for", "30d", "--as", "ann")
    assert "1 set on the list" in said
    assert re.search(r"obeyed   1 of 1 at v\d+", said)
    assert ask(gated, "shop").status_code == 200, "the gateway obeys it, and the command shows the same"
    out = gated.cli("admission", "show", blocked, *config)
    assert "gated    a gateway answers it" in out
    assert re.search(r"listed   shop, until 20\d\d-.*, by ann", out)
    key = json.loads(gated.cli("switch", "keys", "--format", "json"))["signing"]
    listed = json.loads(gated.cli("admission", "list", "--format", "json"))
    assert (listed["trust"], listed["signed_by"], listed["made_by"]) == ("verified", [key], "ann")
    assert [one["feature"] for one in listed["sets"]] == ["shop"]
    assert f"signed by key {key}" in gated.cli("admission", "list")
    gated.cli("admission", "remove", blocked, "--feature", "shop", "--as", "ann")
    assert ask_refused(gated, "shop")
    gated.cli("admission", "remove", blocked, "--feature", "shop", "--as", "ann", code=2)


def test_the_command_tells_the_share_of_what_is_not_gated(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with running(made(tmp_path, files=safety(tmp_path))) as run:
        plain = [ask(run, "chat").headers["x-request-id"] for _ in range(3)]
        other = ask(run, "chat", tools=[tool]).headers["x-request-id"]
        for each in (*plain, other):
            detail(run, each)
        assert "chat: 4 of 4 ungated (100.0%)" in run.cli("admission", "share")
        run.cli("admission", "add", plain[0], "--as", "ann")
        assert "chat: 1 of 4 ungated (25.0%)" in run.cli("admission", "share")
        shown = json.loads(run.cli("admission", "show", "--feature", "chat", "--format", "json", code=1))[
            "rulings"
        ]
        assert [(one["requests"], one["is_gated"], one["action"]) for one in shown] == [
            (3, True, "allow"),
            (1, False, "warn"),
        ]
        digest = shown[1]["digest"]
        run.cli("admission", "add", digest, "--feature", "chat", "--for", "1s", "--as", "ann")
        until(lambda: "EXPIRED" in run.cli("admission", "list"))
        out = run.cli("admission", "show", digest, "--feature", "chat", code=1)
        assert "its gate's verdict has expired" in out
        dry = run.cli("admission", "remove", plain[0], "--as", "ann", "--dry-run")
        assert "(nothing was changed)" in dry
        assert detail(run, ask(run, "chat").headers["x-request-id"])["is_gated"] is True
        before, with_flag = (run.folder / "gateway.yaml").read_text(), "admission: {at_least: block}\n"
        (run.folder / "gateway.yaml").write_text(before + with_flag)
        out = run.cli("admission", "show", other, "--config", "gateway.yaml", code=1)
        assert "refuses it" in out
        assert "admission.at_least says block" in out


def test_a_list_that_does_not_verify_admits_nothing_and_the_command_says_so(tmp_path: Path) -> None:
    with running(made(tmp_path, files=safety(tmp_path))) as run:
        reference = ask(run, "chat").headers["x-request-id"]
        detail(run, reference)
        run.cli("admission", "add", reference, "--as", "ann")
        [pem] = (run.folder / "state" / "stanchion" / "control" / "trusted").glob("*.pem")
        pem.unlink()
        out = run.cli("admission", "list", code=1)
        assert "the list cannot be verified, so it admits nothing" in out
        assert "UNGATED" in run.cli("admission", "show", reference, code=1)
