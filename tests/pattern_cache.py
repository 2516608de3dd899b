"""The packaged patterns, compiled once for all tests and kept until they change: compiling takes seconds.

They lie where the library keeps them for this user; a test with a home of its own takes them from there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from functools import cache
from pathlib import Path

from stanchion.detectors.cache import default_cache_dir

KEPT = default_cache_dir()  # before any test moves the home


@cache
def compile_patterns() -> None:
    """Compile what is missing, once a process; whoever comes second waits for the first."""
    from stanchion.detectors.packaged import packaged_catalogues
    from stanchion.detectors.scan import ON_DEMAND, Scanner
    from stanchion.detectors.views import build_views

    if KEPT is None:
        return
    KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (KEPT / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scanner = Scanner(packaged_catalogues(cache_dir=KEPT), cache_dir=KEPT)
        scanner.hits(build_views("x"))
        for detector in ON_DEMAND:
            scanner.hits_for(build_views("x"), detector)


def give_patterns(folder: Path) -> Path:
    """A cache folder that holds the compiled patterns and nothing else."""
    compile_patterns()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in KEPT.iterdir() if KEPT is not None else ():
        place = folder / path.name
        if path.suffix not in (".hs", ".msgpack") or place.exists():
            continue
        try:
            os.link(path, place)  # entries are replaced whole, never written into
        except OSError:  # another file system
            shutil.copy2(path, place)
    return folder
