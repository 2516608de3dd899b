"""Frameworks' ids that a mapping may cite: `data/catalogues/*.yaml`, each with its source and licence.

A mapping is a citation, not a compliance claim. Ids carry their edition, because numbers move between
editions: Excessive Agency is LLM06:2025 but LLM03:2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec

from stanchion.core.codec import Digest, digest_bytes
from stanchion.core.errors import did_you_mean
from stanchion.core.resources import data_path


class Edition(msgspec.Struct, frozen=True, kw_only=True):
    """One edition: titles by id, and what replaced a retired id (empty when nothing is known)."""

    catalogue: str
    version: str
    titles: dict[str, str]
    retired: dict[str, str]
    digest: Digest
    source: str
    licence: str


class CitationFault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a citation: which of its keys, why, what to write instead."""

    key: str
    message: str
    hint: str


@lru_cache(maxsize=1)
def catalogues() -> Mapping[str, tuple[Edition, ...]]:
    """All packaged editions by catalogue id."""
    found: dict[str, tuple[Edition, ...]] = {}
    for entry in sorted(data_path("catalogues").iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            editions = tuple(_editions(entry.read_bytes()))
            found[editions[0].catalogue] = editions
    return MappingProxyType(found)


def citation_fault(catalogue: str, version: str, entry_id: str) -> CitationFault | None:
    """Why a citation does not stand, or `None` when it does."""
    editions = catalogues().get(catalogue)
    if editions is None:
        return CitationFault(
            key="catalogue",
            message=f"unknown catalogue {catalogue!r}.",
            hint=did_you_mean(catalogue, catalogues()),
        )
    edition = next((e for e in editions if version in spellings(e.version)), None)
    if edition is None:
        known = [min(spellings(e.version), key=len) for e in editions]
        return CitationFault(
            key="version",
            message=f"catalogue {catalogue!r} has no edition {version!r}.",
            hint=f"Known: {', '.join(known)}.",
        )
    if entry_id in edition.titles:
        return None
    if entry_id in edition.retired:
        instead = edition.retired[entry_id]
        return CitationFault(
            key="id",
            message=f"{entry_id!r} is retired in {catalogue} {version}.",
            hint=f"Cite {instead!r} instead." if instead else "Cite another id.",
        )
    return CitationFault(
        key="id",
        message=f"{catalogue} {version} has no id {entry_id!r}.",
        hint=did_you_mean(entry_id, edition.titles),
    )


def spellings(version: str) -> frozenset[str]:
    """How an edition may be written: in full, or by the part of it that holds its number.

    `ISO/IEC 42001:2023` is also `2023`; `1.0 (NIST AI 100-1)` is also `1.0`.
    """
    words = version.split()
    short = {words[0], words[-1], version.rpartition(":")[2]}
    return frozenset({version, *(part for part in short if part[:1].isdigit() and ")" not in part)})


def _editions(data: bytes) -> Iterator[Edition]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(data)
    retired = {
        str(row["id"]): str(row.get("replaced_by", ""))
        for key, rows in content.items()
        if key.startswith("retired") and isinstance(rows, list)
        for row in rows
    }
    for part in content.get("editions", [content]):
        version = next(
            str(source[key])
            for key in ("edition", "version", "instrument", "published")
            for source in (part, content)
            if key in source
        )
        yield Edition(
            catalogue=str(content["catalogue"]),
            version=version,
            titles={name: title for name, title in _entries(part) if name not in retired},
            retired=retired,
            digest=digest_bytes(data),
            source=str(content["source"]),
            licence=str(content["licence"]),
        )


def _entries(node: Any) -> Iterator[tuple[str, str]]:
    """Every `id` with its title, at any depth."""
    if isinstance(node, dict):
        if isinstance(node.get("id"), str):
            title = next((node[key] for key in ("title", "name", "label") if key in node), "")
            yield node["id"], str(title)
        for key, value in node.items():
            if not key.startswith(("retired", "crosswalk")):
                yield from _entries(value)
    elif isinstance(node, list):
        for item in node:
            yield from _entries(item)
