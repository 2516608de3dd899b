"""How long `import stanchion` and `stanchion --help` take over bare Python, and how large a base install is.

Budgets: 0.3 s over bare Python, median of 7; 280 MB without pip. `--size` installs the base lock into a fresh
environment first (about half a minute).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 7
BUDGET_S = 0.3
BUDGET_MB = 280
ROOT = Path(__file__).resolve().parents[2]


def median_s(command: list[str]) -> float:
    """The median wall time of a command, after one warm-up."""
    times = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def base_size_mb() -> float:
    """The size of a fresh environment with the base lock and the package, without pip and setuptools."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python = str(environment / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
        lock = ROOT / "requirements" / "base.txt"
        subprocess.run([*pip, "install", "--require-hashes", "-r", str(lock)], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--no-build-isolation", str(ROOT)], check=True)
        build_only = ["hatchling", "editables", "setuptools"]
        subprocess.run([*pip, "uninstall", "-y", *build_only], check=False)
        files = [
            file
            for file in environment.rglob("*")
            if file.is_file() and not file.is_symlink() and "/site-packages/pip" not in str(file)
        ]
        return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", action="store_true", help="measure the base install as well")
    arguments = parser.parse_args()
    bare = median_s([sys.executable, "-c", "pass"])
    rows = [
        ("import stanchion", median_s([sys.executable, "-c", "import stanchion"])),
        ("stanchion --help", median_s([str(Path(sys.executable).parent / "stanchion"), "--help"])),
    ]
    print(f"bare Python                  {bare:6.3f} s  (median of {RUNS})")
    for name, seconds in rows:
        over = seconds - bare
        print(f"{name:<28} {seconds:6.3f} s  {over:+.3f} s over bare, {over / BUDGET_S:4.0%} of the budget")
    if arguments.size:
        size = base_size_mb()
        print(f"base install                 {size:6.0f} MB {size / BUDGET_MB:4.0%} of the budget")


if __name__ == "__main__":
    main()
