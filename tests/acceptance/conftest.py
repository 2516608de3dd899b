"""A place for each test: a folder, a home and a cache of its own; and the wheel, built and installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from stanchion_command import Place

from pattern_cache import give_patterns

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the packaged patterns compiled, shared by the tests of a session."""
    cache = tmp_path_factory.mktemp("cache")
    give_patterns(cache / "stanchion")
    return cache


@pytest.fixture
def place(tmp_path: Path, warm_cache: Path) -> Place:
    """An empty folder to run commands in."""
    return Place(tmp_path, warm_cache)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build backend of the environment; no index is asked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", *build, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The command of an environment that holds the wheel itself, and the packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # a folder that is named in a .pth file has none of its own read, so not the editable one's
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin" / "stanchion"


@pytest.fixture
def away(installed: Path, place: Place) -> Place:
    """A place outside the repository, with the installed command."""
    return Place(place.folder, place.cache, command=(str(installed),))
