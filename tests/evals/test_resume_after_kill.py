"""A killed run goes on: no case is lost, none is doubled, and only what was in flight is asked again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from stanchion.evals.results import Outcome
from stanchion.evals.runlog import RunFolder, RunReader

HERE = Path(__file__).parent
IN_FLIGHT = 4


def start(folder: Path, count: int, *resume: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "killed_run.py"), str(folder), str(count), *resume],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def kill_when(process: subprocess.Popen[str], folder: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while len(asked(folder)) < lines and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.parametrize("kill_points", [(1,), (700,), (200, 900, 1500)])
def test_no_case_is_lost_or_doubled(tmp_path: Path, kill_points: tuple[int, ...]) -> None:
    prove(tmp_path, kill_points, count=5_000 if len(kill_points) > 1 else 2_500)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_no_case_is_lost_or_doubled_whenever_it_is_killed(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    prove(tmp_path, [draw.randrange(1, 3_000) for _ in range(12)], count=40_000)


def prove(tmp_path: Path, kill_points: Sequence[int], *, count: int) -> None:
    """Kill a run after so many answers more, again and again; then let it end, and count."""
    for number, point in enumerate(kill_points):
        resume = ("latest",) if number else ()
        before = len(asked(tmp_path))
        kill_when(start(tmp_path, count, *resume), tmp_path, before + point)
    assert len(asked(tmp_path)) < count, "the run ended before it could be killed"
    with start(tmp_path, count, "latest") as process:
        told, _ = process.communicate(timeout=120)
    assert told.strip() == str(count)

    folder = RunFolder(tmp_path / "runs").find("latest")
    with RunReader(folder) as reader:
        results = list(reader.results())
        reader.verify()
        assert reader.summary is not None
        assert reader.summary.counts.total == count
    assert Counter(result.case_id for result in results) == Counter({f"case-{n:05}": 1 for n in range(count)})
    assert sum(result.outcome is Outcome.UNSAFE for result in results) == count // 10
    # every kill loses at most what was in flight
    assert len(asked(tmp_path)) <= count + IN_FLIGHT * len(kill_points)
