"""`stanchion eval run`, killed without warning: resumed, it has every case once, and its chain holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter

import pytest
from stanchion_command import Place

CASES = 400
IN_FLIGHT = 4
APP = """
import os
import time

def answer(text):
    with open("asked", "ab", buffering=0) as file:
        file.write(text.encode() + b"\\n")
    time.sleep(0.008)
    return "forbidden" if text.endswith("5") else "fine"
"""
SUITE = """
suite: words
target: {kind: callable, function: 'app.py:answer'}
scorers: [{use: excludes}]
datasets: [{path: rows.jsonl}]
limits: {concurrency: 4}
criteria: [{id: bad words, metric: unsafe_rate, limit: 20%}]
"""


@pytest.fixture
def shop(place: Place) -> Place:
    place.write("app.py", APP)
    place.write("suite.yaml", SUITE)
    place.write_rows(
        "rows.jsonl", [{"prompt": f"question {n}", "expect.excludes": ["forbidden"]} for n in range(CASES)]
    )
    return place


def asked(shop: Place) -> list[str]:
    path = shop.folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def kill_after(shop: Place, process: subprocess.Popen[str], answers: int) -> None:
    with process:
        end = time.monotonic() + 60
        while len(asked(shop)) < answers and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.parametrize("points", [(1,), (60, 150, 90)], ids=["at once", "thrice"])
def test_no_case_is_lost_or_doubled(shop: Place, points: tuple[int, ...]) -> None:
    for number, point in enumerate(points):
        resume = ["--resume", "latest"] if number else []
        before = len(asked(shop))
        kill_after(shop, shop.start("eval", "run", "suite.yaml", *resume), before + point)
    (run_id,) = shop.run_ids()
    cut = shop.call("gate", run_id, "--format", "json")
    assert (cut.code, cut.data["outcome"]) == (3, "invalid"), "half a run never passes"

    done = shop.run("eval", "run", "suite.yaml", "--resume", run_id, "--format", "json")
    assert done.code == 0, done
    assert shop.run_ids() == [run_id]
    summary = done.data["arms"][0]["summary"]
    assert summary["counts"] == {"safe": 360, "unsafe": 40, "unscored": 0, "error": 0, "skipped": 0}

    shown = shop.run("eval", "show", run_id, "--verify", "--format", "json")
    assert shown.code == 0, shown
    assert f"{CASES} records fit the chain" in shown.err
    assert shown.data["arms"][0]["summary"]["counts"] == summary["counts"]
    assert shop.call("gate", run_id).code == 0

    questions = Counter(asked(shop))
    assert set(questions) == {f"question {n}" for n in range(CASES)}
    again = sum(questions.values()) - CASES
    assert again <= IN_FLIGHT * len(points), "only what was in flight is asked twice"


def test_a_log_that_was_changed_after_the_kill_does_not_verify(shop: Place) -> None:
    kill_after(shop, shop.start("eval", "run", "suite.yaml"), CASES // 2)
    (run_id,) = shop.run_ids()
    (segment,) = (shop.folder / ".stanchion/runs" / run_id / "segments").glob("*.jsonl")
    content = segment.read_bytes()
    changed = content.replace(b'"unsafe"', b'"safe"', 1)
    assert changed != content
    segment.write_bytes(changed)
    done = shop.call("eval", "show", run_id, "--verify", "--format", "json")
    assert done.code == 1
    assert "error: " in done.err
    assert "Traceback" not in done.err
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.out or "-")
