"""The wheel: what is in it, what is not, its size, and that it works away from the repository."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
from stanchion_command import Place

ROOT = Path(__file__).parents[2]
MOST_BYTES = 15 * 1024 * 1024
DATA = "stanchion/data/"
MUST_HOLD = (
    "stanchion/py.typed",
    f"{DATA}taxonomy.yaml",
    f"{DATA}patterns/secrets_cloud.yaml",
    f"{DATA}patterns/pii.yaml",
    f"{DATA}patterns/injection.yaml",
    f"{DATA}policies/default.yaml",
    f"{DATA}weights/",
    f"{DATA}report/report.html.j2",
    f"{DATA}catalogues/owasp-llm-top10.yaml",
    f"{DATA}scaffold/policy.yaml.j2",
    f"{DATA}examples/support-assistant/assistant.py",
    f"{DATA}examples/support-assistant/safety/org.yaml",
    "stanchion/store/migrations/versions/m0001_audit_log.py",
)
MUST_NOT_HOLD = (
    "tests/",
    "training/",
    "bench/",
    "shared/",
    "__pycache__",
    ".pyc",
    ".gguf",
    ".ipynb",
    ".stanchion",
)


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= MOST_BYTES


def test_it_holds_every_kind_of_data(wheel: Path) -> None:
    inside = names(wheel)
    assert not [wanted for wanted in MUST_HOLD if not any(name.startswith(wanted) for name in inside)]


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "src/stanchion"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    tracked = {name.removeprefix("src/") for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert len(tracked) > 200
    assert tracked - set(names(wheel)) == set()


def test_it_holds_nothing_else(wheel: Path) -> None:
    inside = names(wheel)
    assert not [name for name in inside for part in MUST_NOT_HOLD if part in name]
    tops = {name.partition("/")[0].rpartition("-")[0] or name.partition("/")[0] for name in inside}
    assert {name.partition("/")[0] for name in inside if not name.startswith("stanchion-")} == {
        "stanchion"
    }, tops
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert any(name.endswith("licenses/NOTICE") for name in inside)


def test_what_runs_is_the_wheel(away: Place, installed: Path) -> None:
    code = "import stanchion; print(stanchion.__file__)"
    python = Place(away.folder, away.cache, command=(str(installed.parent / "python"), "-c", code))
    assert Path(python.run().out.strip()).is_relative_to(installed.parent.parent)


def test_the_installed_command_works_away_from_the_repository(away: Place) -> None:
    from stanchion.core.version import package_version

    version = away.run("--version")
    assert (version.code, version.out) == (0, f"stanchion {package_version()}\n")
    listed = away.run("detectors", "list")
    assert listed.code == 0
    for detector in ("injection.linear", "leakage", "pii", "refusal", "secrets"):
        assert detector in listed.out
    assert away.run("init", "--profile", "regulated").code == 0
    assert away.run("check").code == 0
    shown = away.run(
        "policy", "test", "default", "--text", "What is your return policy?", "--expect", "allow"
    )
    assert shown.code == 0, shown


def test_the_packaged_example_passes_its_own_check(away: Place, installed: Path) -> None:
    (safety,) = installed.parents[1].glob("lib/python*/site-packages/stanchion/data/examples/*/safety")
    done = away.run("check", str(safety), "--strict")
    assert done.code == 0, done
    assert "0 problems, 0 warnings" in done.err
