"""The end of a process: work in a C++ library is waited for, because ending its thread there would abort."""

from __future__ import annotations

import subprocess
import sys

LEAVES = """
import sys, time
from stanchion.guard.workers import WorkerPool

pool, began = WorkerPool(), []

def work():
    began.append(True)
    time.sleep(float(sys.argv[1]))
    print("finished", flush=True)

job = pool.submit(work)
while not began:
    time.sleep(0.001)
if sys.argv[2] == "given up":
    pool.abandon(job)
"""

STREAMS = """
import sys, time
from stanchion import Guard
from stanchion.core.interaction import Interaction, user

guard = Guard.load()
guard.stream(guard.prepare(Interaction(messages=(user("hello there"),))))
time.sleep(float(sys.argv[1]))
"""


def ended(program: str, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def test_work_that_was_begun_is_waited_for() -> None:
    done = ended(LEAVES, "0.3", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


def test_work_that_was_given_up_is_not() -> None:
    done = ended(LEAVES, "3600", "given up")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_work_that_does_not_come_back_holds_the_end_a_moment_only() -> None:
    done = ended(LEAVES, "3600", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_process_that_ends_while_patterns_are_compiled_ends_well() -> None:
    """It aborted at about 0.3 seconds, where a thread came back from RE2 into a process that was over."""
    for pause in ("0", "0.1", "0.2", "0.3", "0.4"):
        done = ended(STREAMS, pause)
        assert (done.returncode, done.stderr) == (0, ""), pause
