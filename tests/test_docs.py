"""The documentation is run: every `stanchion` command in it works, and every link leads somewhere.

A block of a page runs in the page's scratch folder, in order, so that a page can build on itself; a block
that says `init` for a folder that is there already starts a fresh one. Blocks marked ```text are not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BASH = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
SLOW = re.compile(r"\bstanchion demo\b|--target (local|endpoint)|^\s*make ", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    """The bash blocks of a page that run our command."""
    found = BASH.findall(page.read_text(encoding="utf-8"))
    return [block for block in found if re.search(r"^\s*stanchion\b", block, re.MULTILINE)]


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


def test_there_is_something_to_run() -> None:
    assert WITH_BLOCKS


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    for block in blocks(page):
        if SLOW.search(block):
            continue
        if "stanchion init" in block:
            shutil.rmtree(tmp_path / "safety", ignore_errors=True)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        # 1 and 3 are verdicts (found something, could not judge); 2 and a crash are defects of the page
        assert done.returncode in (0, 1, 3), f"{block}\n{done.stdout}\n{done.stderr}"
        assert "unexpected error" not in done.stderr, f"{block}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in HEADING.findall(text)]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_decisions_are_numbered_once_and_titled_alike() -> None:
    numbers = []
    for page in (ROOT / "docs/adr").glob("*.md"):
        number = int(page.name[:4])
        first = page.read_text(encoding="utf-8").splitlines()[0]
        assert re.match(rf"# 0*{number}\. [\w`]", first), page.name
        numbers.append(number)
    assert len(numbers) == len(set(numbers))
