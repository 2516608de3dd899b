"""Threads that need different parts of the Redis driver at the same moment all get the whole of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOGETHER = """
import threading

from stanchion.gateway.redis_driver import redis_driver

assert "redis" not in __import__("sys").modules
start, got = threading.Barrier(16), []

def need(part):
    start.wait()
    got.append(getattr(redis_driver(), part))

parts = ["RedisError", "asyncio", "exceptions", "Redis"] * 4
threads = [threading.Thread(target=need, args=(part,)) for part in parts]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(got) == len(parts), got
"""


def test_threads_import_the_driver_together():
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", TOGETHER], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_nobody_else_imports_it():
    """One import elsewhere would bring the race back."""
    source = Path(__file__).parents[2] / "src" / "stanchion"
    importing = re.compile(r"^\s*(?:import|from) redis\b", re.MULTILINE)
    named = [p.name for p in source.rglob("*.py") if importing.search(p.read_text(encoding="utf-8"))]
    assert named == ["redis_driver.py"]
