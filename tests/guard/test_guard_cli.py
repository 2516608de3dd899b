"""`stanchion policy`: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stanchion.cli.main import main

POLICY = """version: 1
detectors:
  pii: {}
  secrets: {}
rules:
- id: mail
  when: {category: pii.*, surface: [input, output]}
  effect: redact
"""
CASES = """version: 1
cases:
- {id: plain, text: hello there, expect: allow}
- {id: mail, text: write to bob.miller@example.com, expect: redact, rules: [mail]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "cases.yaml").write_text(CASES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_show_prints_the_checks_of_every_surface(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "show", "policy.yaml", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)

    assert [line["detector"] for line in shown["surfaces"]["input"]] == ["pii"]
    assert shown["surfaces"]["system"] == []
    assert "system" in shown["unscanned"]
    assert shown["idle_detectors"] == ["secrets"]
    assert shown["rules"][0]["effect"] == "redact (replace)"
    assert shown["digest"].startswith("sha256:")

    assert main(["policy", "show", "policy.yaml"]) == 0
    text = capsys.readouterr().out
    assert "UNSCANNED: no check runs here" in text
    assert "detector secrets runs nowhere" in text


def test_list_and_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "list", "--format", "json"]) == 0
    assert {"default", "strict"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert main(["policy", "diff", "default", "strict", "--fail-on-looser"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 looser, ")
    assert main(["policy", "diff", "strict", "default", "--fail-on-looser", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"setting": "tools.default", "direction": "looser", "before": "block", "after": "allow"} in found[
        "changes"
    ]


@pytest.mark.usefixtures("folder")
def test_a_text_has_the_expected_effect_or_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    text = "write to bob.miller@example.com"
    assert main(["policy", "test", "policy.yaml", "--text", text, "--expect", "redact"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("redact by mail\n")
    assert "bob" not in out
    assert main(["policy", "test", "policy.yaml", "--text", text, "--expect", "allow"]) == 1
    assert "expected allow, got redact" in capsys.readouterr().err
    assert main(["policy", "test", "policy.yaml", "--text", text, "--surface", "system"]) == 0
    assert capsys.readouterr().out == "allow\n"
    assert main(["policy", "test", "policy.yaml", "--text", text, "--expect", "alow"]) == 2
    assert "Did you mean 'allow'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        ("", 0, "2 cases, 0 failed"),
        ("- {id: wrong, text: hello, expect: block}\n", 1, "FAIL wrong: expected block, got allow"),
        (
            "- {id: other, text: write to bob.miller@example.com, expect: redact, rules: [none]}\n",
            1,
            "FAIL other: expected redact, got redact by mail without none",
        ),
    ],
)
def test_cases(folder: Path, capsys: pytest.CaptureFixture[str], change: str, code: int, line: str) -> None:
    (folder / "cases.yaml").write_text(CASES + change)

    assert main(["policy", "test", "policy.yaml", "--cases", "cases.yaml"]) == code
    assert line in capsys.readouterr().out.splitlines()
    assert main(["policy", "test", "policy.yaml", "--cases", "cases.yaml", "--format", "json"]) == code
    assert json.loads(capsys.readouterr().out)["failed"] == code


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "missing.yaml"], "no such file"),
        (["show", "defualt"], "Did you mean 'default'"),
        (["test", "policy.yaml"], "give either --text or --cases"),
        (["test", "policy.yaml", "--text", "a", "--cases", "cases.yaml"], "give either"),
        (["test", "policy.yaml", "--cases", "policy.yaml"], "unknown key"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", *arguments]) == 2
    assert message in capsys.readouterr().err
