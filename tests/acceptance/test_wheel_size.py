"""What an installation downloads of us: the base wheel with its weights stays below 15 MB."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
LIMIT_MB = 15.0


@pytest.mark.slow
def test_the_base_wheel_with_its_weights_is_small(tmp_path: Path) -> None:
    wheel = Path(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    largest = sorted(entries, key=lambda entry: -entry.compress_size)[:6]
    size_mb = wheel.stat().st_size / 1e6
    told = ", ".join(f"{entry.filename} {entry.compress_size / 1e6:.2f} MB" for entry in largest)
    print(f"{wheel.name}: {size_mb:.2f} MB; largest: {told}")
    names = {entry.filename for entry in entries}
    assert any(name.startswith("stanchion/data/weights/") for name in names)
    assert not any(name.endswith((".pyc", ".pkl", ".pickle")) for name in names)
    assert size_mb <= LIMIT_MB, told
