"""`stanchion switch` and `stanchion access-keys` as people run them, without a running gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stanchion.cli.main import main

ORG = """\
version: 1
organisation: Test
people:
  ann: {name: Ann}
  ben: {name: Ben}
  eve: {name: Eve}
roles:
  owner: {title: Owner, people: [ann]}
tiers:
  "1": {lift_people: 1, lift_wait: 0s}
  "3": {lift_people: 3}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "STANCHION_ADMIN_KEY", "STANCHION_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def run_json(capsys, *words: str):
    code, out, err = run(capsys, *words, "--format", "json")
    assert code == 0, err
    return json.loads(out)


def new_key(capsys, monkeypatch, person: str, role: str) -> str:
    code, secret, err = run(
        capsys, "access-keys", "new", f"{person}-{role}", "--role", role, "--person", person
    )
    assert code == 0, err
    return secret.strip()


def test_two_spellings_and_two_names_from_one_account_are_one_person(capsys) -> None:
    target = ("global", "--as")
    assert run(capsys, "switch", "engage", *target, "ann", "--reason", "leaks")[0] == 0
    assert run(capsys, "switch", "lift", *target, "ann", "--reason", "fixed")[0] == 0
    for name in ("ann", "Ann", " ann ", "\uff21nn", "ben", "\u0430nn"):
        code, _, err = run(capsys, "switch", "confirm", *target, name)
        assert code == 2, name
        assert "Somebody else confirms it, from another account or with an admin key" in err
    assert "(1 of 2)" in run(capsys, "switch", "list")[1]


def test_a_sole_operator_waits_and_the_record_says_so(capsys) -> None:
    assert run(capsys, "switch", "engage", "global", "--reason", "leaks", "--as", "ann")[0] == 0
    words = ("switch", "lift", "global", "--reason", "nobody else is here", "--sole-operator", "--as", "ann")
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "ann (only stated); alone, after a wait" in out
    code, _, err = run(capsys, "switch", "confirm", "global", "--as", "Ann")
    assert code == 2
    assert "waits until" in err
    told = run_json(capsys, "switch", "history")[0]["payload"]
    assert (told["sole_operator"], told["reason"]) == (True, "nobody else is here")


def two_keys(capsys, monkeypatch) -> tuple[str, str]:
    """The keys of ann and ben, made by a third person; nobody's is set."""
    eve = new_key(capsys, monkeypatch, "eve", "admin")
    monkeypatch.setenv("STANCHION_ADMIN_KEY", eve)
    keys = (
        new_key(capsys, monkeypatch, "ann", "admin"),
        new_key(capsys, monkeypatch, "ben", "approver"),
    )
    monkeypatch.delenv("STANCHION_ADMIN_KEY")
    return keys


def test_a_key_that_one_person_made_or_rotated_is_not_the_second_person(capsys, monkeypatch) -> None:
    ann, ben = two_keys(capsys, monkeypatch)
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    zed = new_key(capsys, monkeypatch, "zed", "admin")
    rotated = run(capsys, "access-keys", "rotate", "ben-approver", "--grace", "1h")[1].strip()
    monkeypatch.setenv("STANCHION_ADMIN_KEY", zed)
    yan = new_key(capsys, monkeypatch, "yan", "approver")
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    run(capsys, "switch", "engage", "tool:wire", "--reason", "leaks")
    assert run(capsys, "switch", "lift", "tool:wire", "--reason", "fixed")[0] == 0
    for held in (zed, yan, rotated, ben):  # an old secret is one of the same key
        monkeypatch.setenv("STANCHION_ADMIN_KEY", held)
        code, _, err = run(capsys, "switch", "confirm", "tool:wire")
        assert code == 2
        assert "that none of them made" in " ".join(err.split())
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    run(capsys, "switch", "engage", "tool:wire", "--reason", "again")  # drops the lift
    monkeypatch.setenv("STANCHION_ADMIN_KEY", zed)
    assert run(capsys, "switch", "lift", "tool:wire", "--reason", "fixed")[0] == 0
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    assert run(capsys, "switch", "confirm", "tool:wire")[0] == 2, "nor the other way round"


def test_two_whose_keys_a_third_made_are_two(capsys, monkeypatch) -> None:
    ann, ben = two_keys(capsys, monkeypatch)
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    run(capsys, "switch", "engage", "tool:wire", "--reason", "leaks")
    run(capsys, "switch", "lift", "tool:wire", "--reason", "fixed")
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ben)
    assert run_json(capsys, "switch", "confirm", "tool:wire")["answer"]["is_lifted"]


def test_who_holds_every_key_may_be_the_only_operator_after_a_wait(capsys, monkeypatch) -> None:
    ann = new_key(capsys, monkeypatch, "ann", "admin")
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    new_key(capsys, monkeypatch, "ben", "approver")
    run(capsys, "switch", "engage", "global", "--reason", "leaks")
    assert run(capsys, "switch", "lift", "global", "--reason", "x", "--sole-operator")[0] == 0
    code, _, err = run(capsys, "switch", "confirm", "global")
    assert code == 2
    assert "waits until" in err


def test_nobody_is_the_only_operator_where_two_are_known(capsys, monkeypatch) -> None:
    monkeypatch.setenv("STANCHION_ADMIN_KEY", two_keys(capsys, monkeypatch)[0])
    assert run(capsys, "switch", "engage", "global", "--reason", "leaks")[0] == 0
    code, _, err = run(capsys, "switch", "lift", "global", "--reason", "x", "--sole-operator")
    assert code == 2
    assert "more than one operator" in err


def test_one_engages_and_two_lift(capsys, monkeypatch) -> None:
    code, out, _ = run(capsys, "switch", "engage", "feature:checkout", "--reason", "leaks", "--as", "ann")
    assert code == 0
    assert "ENGAGED  feature:checkout  v1" in out
    assert "takes 2 people" in out
    assert "no replica is running" in out
    ann, ben = two_keys(capsys, monkeypatch)
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    assert run(capsys, "switch", "lift", "feature:checkout", "--reason", "fixed", "--as", "ann")[0] == 0
    code, _, err = run(capsys, "switch", "confirm", "feature:checkout", "--as", "ann")
    assert code == 2
    assert "Somebody else confirms it" in err
    assert "(1 of 2)" in run(capsys, "switch", "list")[1]
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ben)
    out = run(capsys, "switch", "confirm", "feature:checkout", "--as", "Ben")[1]
    assert "LIFTED" in out
    assert "ann (proved by a key), ben (proved by a key)" in out
    assert "nothing is switched off" in run(capsys, "switch", "list")[1]
    told = run_json(capsys, "switch", "history")
    assert [(each["kind"], each["actor"]) for each in told] == [
        ("switch.lifted", "ben"),
        ("switch.lift_asked", "ann"),
        ("switch.engaged", "ann"),
    ]


def test_a_target_with_a_typing_error_is_answered_with_the_right_word(capsys) -> None:
    code, _, err = run(capsys, "switch", "engage", "fature:x", "--reason", "y")
    assert code == 2
    assert "Did you mean 'feature'?" in err


def test_a_dry_run_says_what_would_happen_and_changes_nothing(capsys) -> None:
    _, out, _ = run(capsys, "switch", "engage", "global", "--reason", "drill", "--dry-run")
    assert "(nothing was changed)" in out
    assert run_json(capsys, "switch", "list")["version"] == 0
    code, out, _ = run(capsys, "access-keys", "new", "shop", "--dry-run")
    assert (code, out) == (0, "")


def test_set_does_what_engage_and_lift_do(capsys) -> None:
    assert run_json(capsys, "switch", "set", "tool:refund", "engaged", "--reason", "x")["act"] == "engaged"
    assert run_json(capsys, "switch", "set", "tool:refund", "lifted", "--reason", "x")["act"] == "lift_asked"


def test_a_lease_is_granted_renewed_and_listed(capsys) -> None:
    assert run(capsys, "switch", "lease", "tool:refund", "--for", "8h", "--reason", "trial")[0] == 0
    assert run_json(capsys, "switch", "renew", "tool:refund", "--for", "9h")["answer"]["ttl_s"] == 9 * 3600
    assert "lease    tool:refund until" in run(capsys, "switch", "list")[1]
    code, _, err = run(capsys, "switch", "renew", "tool:other")
    assert (code, "there is no lease on tool:other" in err) == (2, True)


def safety(home: Path) -> None:
    folder = home / "safety"
    assert main(["init", "--profile", "startup", "--feature", "checkout"]) == 0
    (folder / "org.yaml").write_text(ORG)


def test_the_tier_in_org_yaml_says_how_many_lift(home, capsys) -> None:
    safety(home)
    case = (home / "safety/features/checkout/case.yaml").read_text()
    tier = next(line for line in case.splitlines() if line.startswith("tier:"))
    case_file = home / "safety/features/checkout/case.yaml"
    case_file.write_text(case.replace(tier, "tier: 1"))
    capsys.readouterr()
    engaged = run_json(capsys, "switch", "engage", "feature:checkout", "--reason", "x", "--as", "ann")
    assert (engaged["answer"]["people"], engaged["answer"]["wait_s"]) == (1, 0)
    everything = run_json(capsys, "switch", "engage", "global", "--reason", "x", "--as", "ann")
    assert everything["answer"]["people"] == 3  # what is broader than a feature takes the strictest tier
    run_json(capsys, "switch", "lift", "feature:checkout", "--reason", "y", "--as", "ann")
    assert run_json(capsys, "switch", "confirm", "feature:checkout", "--as", "ann")["answer"]["is_lifted"]


def test_a_broken_org_yaml_keeps_nobody_from_engaging(home, capsys) -> None:
    safety(home)
    (home / "safety/org.yaml").write_text("people: [")
    capsys.readouterr()
    code, out, err = run(capsys, "switch", "engage", "global", "--reason", "x", "--as", "zoe")
    assert code == 0
    assert "takes 2 people" in out
    assert "the default holds" in err


def test_somebody_unknown_may_engage_and_not_lift(home, capsys) -> None:
    safety(home)
    capsys.readouterr()
    assert run(capsys, "switch", "engage", "global", "--reason", "x", "--as", "zoe")[0] == 0
    code, _, err = run(capsys, "switch", "lift", "global", "--reason", "y", "--as", "zoe")
    assert code == 2
    assert "'zoe' is nobody in org.yaml" in err


def test_once_there_are_admin_keys_lifting_takes_one_and_engaging_does_not(capsys, monkeypatch) -> None:
    ann, approver = two_keys(capsys, monkeypatch)
    assert run(capsys, "switch", "engage", "global", "--reason", "x", "--as", "ann")[0] == 0
    code, _, err = run(capsys, "switch", "lift", "global", "--reason", "y", "--as", "ann")
    assert (code, "this takes one" in err) == (2, True)
    monkeypatch.setenv("STANCHION_ADMIN_KEY", ann)
    viewer = new_key(capsys, monkeypatch, "eve", "viewer")
    asked = run_json(capsys, "switch", "lift", "global", "--reason", "y")
    assert (asked["by"]["person"], asked["by"]["proof"][:8]) == ("ann", "key:key_")
    monkeypatch.setenv("STANCHION_ADMIN_KEY", viewer)
    code, _, err = run(capsys, "switch", "confirm", "global")
    assert (code, "approver, admin" in err) == (2, True)
    monkeypatch.setenv("STANCHION_ADMIN_KEY", approver)
    assert run(capsys, "switch", "confirm", "global", "--as", "eve")[0] == 2
    assert run_json(capsys, "switch", "confirm", "global")["answer"]["is_lifted"]
    monkeypatch.setenv("STANCHION_ADMIN_KEY", approver[:-1] + "!")
    assert "the admin key is not valid" in run(capsys, "switch", "lift", "global", "--reason", "z")[2]


def test_a_key_is_shown_once_and_kept_nowhere(home, capsys) -> None:
    _, secret, _ = run(capsys, "access-keys", "new", "shop", "--feature", "checkout", "--for", "90d")
    secret = secret.strip()
    assert secret.startswith("stn_")
    _, out, _ = run(capsys, "access-keys", "list", "--format", "json")
    assert secret not in out
    assert "hash" not in out
    for path in home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert oct((home / ".local/state/stanchion/control").stat().st_mode)[-3:] == "700"


def test_keys_are_rotated_and_revoked(capsys) -> None:
    run(capsys, "access-keys", "new", "shop")
    code, _, err = run(capsys, "access-keys", "new", "shop")
    assert (code, "there is a key 'shop'" in err) == (2, True)
    assert run(capsys, "access-keys", "rotate", "shop", "--grace", "1h")[1].startswith("stn_")
    assert run(capsys, "access-keys", "revoke", "shop", "--reason", "seen in a log")[0] == 0
    assert "nothing was changed" in run(capsys, "access-keys", "revoke", "shop", "--reason", "again")[1]
    assert run(capsys, "access-keys", "rotate", "shop")[0] == 2
    assert run(capsys, "access-keys", "list")[1] == ""
    assert "revoked" in run(capsys, "access-keys", "list", "--all")[1]


@pytest.mark.parametrize(
    "wrong",
    [["--role", "admin"], ["--role", "boss", "--person", "a"], ["--surface", "openai.chatt"], ["--for", "1"]],
)
def test_a_key_that_makes_no_sense_is_refused(capsys, wrong) -> None:
    code, out, err = run(capsys, "access-keys", "new", "shop", *wrong)
    assert (code, out) == (2, "")
    assert "error:" in err


def test_the_keys_that_sign_are_shown_and_made_anew(home, capsys) -> None:
    assert "no key yet" in run(capsys, "switch", "keys")[1]
    run(capsys, "switch", "engage", "global", "--reason", "x")
    before = run_json(capsys, "switch", "keys")
    after = run_json(capsys, "switch", "keys", "--new")
    assert before["signing"] != after["signing"]
    assert set(after["trusted"]) == {before["signing"], after["signing"]}
    assert run(capsys, "switch", "engage", "tool:x", "--reason", "y")[0] == 0
    assert run(capsys, "switch", "watch", "--for", "0s")[1].count("ENGAGED") == 2


def test_stopping_something_loads_no_more_than_it_needs(home):
    """At 3 a.m. every tenth of a second counts, and a broken part elsewhere must not stand in the way."""
    run_in = "main(['switch', 'engage', 'global', '--reason', 'drill', '--wait', '0'])"
    subprocess.run([sys.executable, "-c", f"from stanchion.cli.main import main; {run_in}"], check=True)
    code = f"import sys; from stanchion.cli.main import main; {run_in}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "sqlalchemy" in loaded
    heavy = {
        "numpy",
        "hyperscan",
        "aiohttp",
        "uvicorn",
        "starlette",
        "alembic",
        "openfeature",
        "rich.console",
    }
    ours = {
        "stanchion.governance.folder",
        "stanchion.guard.pipeline",
        "stanchion.gateway.app",
        "stanchion.bootstrap",
    }
    assert loaded & (heavy | ours | {"sqlalchemy.dialects.postgresql"}) == set()
