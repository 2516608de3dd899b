"""`stanchion audit` as a person runs it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from stanchion.cli.main import main
from stanchion.core.clock import ManualClock
from stanchion.store.audit_chain import Head
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_database(tmp_path / "records.db") as database:
        log = AuditLog(database, clock=ManualClock())
        for n in range(3):
            log.append("gate.verdict", {"n": n}, actor="ann")
    return "sqlite:///records.db"


def head_of(path: str) -> Head:
    with open_database(path.removeprefix("sqlite:///"), is_read_only=True) as database:
        return AuditLog(database, clock=ManualClock()).head()


def break_it(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER audit_entries_no_update")
        connection.execute("UPDATE audit_entries SET actor = 'mallory' WHERE sequence = 2")
    connection.close()


def test_an_intact_log_exits_0_and_prints_its_head(records: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--database", records]) == 0
    out = capfd.readouterr().out
    assert out.startswith("intact: 3 entries, 0 payloads erased on record\n")
    assert f"head:   {head_of(records)}\n" in out
    assert "--expect-head" in out


def test_a_broken_log_exits_1_and_names_the_first_broken_entry(
    records: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    break_it(tmp_path / "records.db")
    assert main(["audit", "verify", "--database", records]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "broken: entry 2 was changed: its digest does not match its fields",
        "Intact before it: 1 entry.",
    ]
    assert main(["audit", "verify", "--database", records, "--format", "json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["intact"] is False
    assert found["verification"]["broken"]["sequence"] == 2


def test_an_expected_head_is_checked(records: str, capfd: pytest.CaptureFixture[str]) -> None:
    head = head_of(records)
    assert main(["audit", "verify", "--database", records, "--expect-head", str(head)]) == 0
    later = Head(9, head.digest)
    assert main(["audit", "verify", "--database", records, "--expect-head", str(later)]) == 1
    assert "broken: entry 4 is missing: the log was known to reach entry 9" in capfd.readouterr().out
    assert main(["audit", "verify", "--database", records, "--expect-head", "nonsense"]) == 2


def test_a_missing_database_exits_2_and_is_not_made(
    records: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", "--database", "sqlite:///absent.db"]) == 2
    assert "there is no database at absent.db" in capfd.readouterr().err
    assert not (tmp_path / "absent.db").exists()


def test_a_damaged_database_exits_1(records: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records.db").write_bytes(b"not a database at all, not even a little bit. " * 100)
    assert main(["audit", "verify", "--database", records]) == 1
    assert "is damaged or is no database" in capfd.readouterr().err


def test_an_unreachable_database_exits_3_without_its_password(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--database", "postgresql://ann:hunter2@127.0.0.1:9/records"]) == 3
    err = capfd.readouterr().err
    assert "did not answer" in err
    assert "hunter2" not in err


def test_the_database_of_the_settings_is_the_default(
    records: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STANCHION_STORE_URL", records)
    assert main(["audit", "verify"]) == 0
    assert "intact: 3 entries" in capfd.readouterr().out


def test_entries_are_listed(records: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "list", "--database", records, "--after", "1"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "       2  2026-01-01T00:00:00+00:00  gate.verdict  ann",
        "       3  2026-01-01T00:00:00+00:00  gate.verdict  ann",
    ]
    assert main(["audit", "list", "--database", records, "--kind", "no.such", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out) == []
    assert main(["audit", "list", "--database", records, "--format", "json", "--limit", "1"]) == 0
    assert json.loads(capfd.readouterr().out)[0]["payload"] == {"n": 0}
