"""The catalogues that come with the package; parsed copies are kept on disk, since reading YAML is slow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from stanchion.core.resources import data_path
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.patterns import FORMAT, Catalogue

PATTERNS = "patterns"


def packaged_catalogues(*, cache_dir: Path | None = None) -> tuple[Catalogue, ...]:
    """Every catalogue of `data/patterns`, by file name."""
    cache = DiskCache(cache_dir)
    return tuple(_catalogue(source, cache) for source in _sources())


def _sources() -> Iterator[Traversable]:
    folder = data_path(PATTERNS)
    if folder.is_dir():
        yield from sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)


def _catalogue(source: Traversable, cache: DiskCache) -> Catalogue:
    key = hashlib.sha256(b"%d:" % FORMAT + _taxonomy() + source.read_bytes()).hexdigest()[:40]
    name = f"catalogue-{key}.msgpack"
    stored = cache.read(name)
    if stored is not None:
        try:
            return msgspec.msgpack.decode(stored, type=Catalogue)
        except msgspec.DecodeError:
            pass  # written by another version
    from stanchion.detectors.catalogue import load_packaged

    with resources.as_file(source) as path:
        catalogue = load_packaged(path)
    cache.write(name, msgspec.msgpack.encode(catalogue))
    return catalogue


def _taxonomy() -> bytes:
    """Part of the key: a pattern without a severity takes its category's."""
    return data_path("taxonomy.yaml").read_bytes()
