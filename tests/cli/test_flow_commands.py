"""`stanchion rollout`, `prompts`, `approvals` and `limits`, against a database."""

import asyncio
import json

import pytest

from stanchion.bootstrap_secrets import open_id_keys, sealing_key
from stanchion.cli.main import main
from stanchion.config import load_settings
from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.decision import Decision, Effect, Surface
from stanchion.files.schema import load_text
from stanchion.gateway.approvals import ApprovalQueue, ApprovalsSection
from stanchion.gateway.ports import ApiSurface, RequestFacts
from stanchion.gateway.rollout_file import ExperimentModel
from stanchion.gateway.rollout_store import RolloutStore
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database

CARD = "4111 1111 1111 1111"
EXPERIMENT = """
id: new-prompt
variants: [{id: canary, weight: 0.1, prompt: support@canary}]
metrics: [{name: blocked, max_increase: 0.02}]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A state directory and a database of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STANCHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("STANCHION_STORE_URL", f"sqlite:///{tmp_path / 'r.db'}")
    monkeypatch.setenv("STANCHION_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def run(capsys, *words: str, code: int = 0):
    assert main(words) == code, capsys.readouterr().err
    out = capsys.readouterr().out
    return json.loads(out) if "json" in words else out


def test_a_verdict_is_shown_with_its_intervals_and_acted_on(place, capsys):
    with open_database(place / "r.db") as database:
        store = RolloutStore(database, clock=SystemClock())
        model = load_text(EXPERIMENT, ExperimentModel, file="x.yaml").value
        state = store.register(model)
        store.add(
            {
                ("new-prompt", state.digest, 0, "canary", "blocked"): (60, 300),
                ("new-prompt", state.digest, 0, "control", "blocked"): (27, 2700),
            }
        )
    said = run(capsys, "rollout", "show", "new-prompt", code=1)
    assert "60/300 against 27/2,700" in said
    assert "verdict: rollback (blocked is more than 2.00% above control)" in said
    (row,) = run(capsys, "rollout", "list", "--format", "json")
    assert row["verdicts"][0]["action"] == "rollback"
    act = ("rollout", "rollback", "new-prompt", "canary", "--reason", "complaints", "--as", "ann")
    assert "would rollback" in run(capsys, *act, "--dry-run")
    assert run(capsys, *act, "--format", "json")["state"]["variants"]["canary"]["status"] == "rolled_back"
    run(capsys, "rollout", "promote", "new-prompt", "canari", "--reason", "x", code=2)
    with open_database(place / "r.db") as database:
        last = AuditLog(database, clock=SystemClock()).entries()[-1]
    assert (last.kind, last.actor) == ("rollout.rolled_back", "ann")


def test_prompts_are_kept_compared_and_rolled_back(place, capsys):
    (place / "a.txt").write_text("You help with orders.")
    (place / "b.txt").write_text("You help with orders, kindly.")
    run(capsys, "prompts", "add", "support", "a.txt", "--label", "prod")
    made = run(capsys, "prompts", "add", "support", "b.txt", "--label", "prod", "--format", "json")
    assert made["version"] == 2
    assert "+You help with orders, kindly." in run(capsys, "prompts", "diff", "support@v1", "support@prod")
    assert "would point support@prod at v1" in run(capsys, "prompts", "rollback", "support", "--dry-run")
    assert "v1 now" in run(capsys, "prompts", "rollback", "support")
    assert run(capsys, "prompts", "show", "support@prod") == "You help with orders.\n"
    assert "v2 now" in run(capsys, "prompts", "label", "support", "prod", "2")
    run(capsys, "prompts", "show", "support@beta", code=2)


def test_blocks_are_listed_and_lifted(place, capsys):
    assert "nobody" in run(capsys, "limits", "blocked")
    run(capsys, "limits", "block", "key:k1", "--reason", "leaked key")
    assert "key:k1" in run(capsys, "limits", "blocked")
    run(capsys, "limits", "unblock", "key:k1", "--reason", "rotated")
    run(capsys, "limits", "unblock", "key:k1", "--reason", "rotated", code=1)


def test_a_ticket_is_shown_and_decided_once(place, capsys):
    open_id_keys(place / "state")
    with open_database(place / "r.db") as database:
        clock = SystemClock()
        queue = ApprovalQueue(
            ApprovalsSection(),
            database,
            clock=clock,
            ids=SortableIds(clock),
            key=sealing_key(load_settings()),
        )
        parked = asyncio.run(
            queue.park(
                RequestFacts(id="r1", surface=ApiSurface.OPENAI_CHAT, feature="support"),
                kind="tool_call",
                subject={"tool": "refund", "arguments": {"amount": 900, "to": CARD}},
                decision=Decision(effect=Effect.REQUIRE_APPROVAL, surface=Surface.TOOL_CALL, reason="money"),
            )
        )
    ticket = parked.ticket
    assert ticket in run(capsys, "approvals", "list")
    shown = run(capsys, "approvals", "show", ticket)
    assert '"refund"' in shown
    assert "900" in shown
    assert CARD not in shown
    assert "[CARD, 19 characters]" in shown
    words = ("approvals", "show", ticket, "--reveal", "--as", "ann", "--reason", "the shop asks")
    assert CARD in run(capsys, *words)
    with open_database(place / "r.db") as database:
        last = AuditLog(database, clock=SystemClock()).entries()[-1]
    assert (last.kind, last.actor, last.payload["reason"]) == ("approval.revealed", "ann", "the shop asks")
    assert "would approve" in run(capsys, "approvals", "approve", ticket, "--as", "ann", "--dry-run")
    assert f"{ticket} is approved, by ann" in run(capsys, "approvals", "approve", ticket, "--as", "ann")
    run(capsys, "approvals", "deny", ticket, "--as", "bob", code=2)
    assert run(capsys, "approvals", "list", "--format", "json") == []
    assert run(capsys, "approvals", "list", "--status", "all", "--format", "json")[0]["decided_by"] == "ann"
    run(capsys, "approvals", "list", "--status", "open", code=2)
