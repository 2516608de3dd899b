"""The index manifest: which documents a store holds, who may read them, and what the scan said; signed.

The unit is what the retriever gives back: a passage, or a whole document. The digest of the manifest is the
index digest of a component set. Documents themselves stay where they are; the manifest holds no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.codec import Digest, canonical_json, digest_bytes, digest_text
from stanchion.core.decision import Surface
from stanchion.core.errors import IntegrityError, UsageError
from stanchion.core.signatures import Envelope, sign, verified
from stanchion.files.keys import envelope_of, read_envelope, replace_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from stanchion.guard.pipeline import Guard

PAYLOAD_TYPE = "application/vnd.stanchion.index+json"
FORMAT = 1
EVERYBODY = "*"
LARGEST_MANIFEST = 512 * 1024 * 1024
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,199}")  # what a citation in brackets can name
_LABEL = re.compile(r"\*|(?:user|group):[^\s*]{1,200}")


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the application has authenticated them; never as a prompt says."""

    tenant: str
    user: str = ""
    groups: tuple[str, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        """What of a document's `readers` lets this reader in."""
        own = {f"user:{self.user}"} if self.user else set()
        return frozenset({EVERYBODY, *own, *(f"group:{name}" for name in self.groups)})


class SourceDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document to index.

    `tenant` is whose it is, `*` for all; `readers` are labels (`user:ann`, `group:hr`, `*` for everybody of
    the tenant). Nobody is let in by leaving them out: both are required.
    """

    id: str
    text: str
    source: str
    tenant: str
    readers: tuple[str, ...]
    changed_at: datetime


class IndexedDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document as the manifest knows it. `refused` holds the categories for which the scan refused it."""

    id: str
    digest: Digest
    source: str
    tenant: str
    readers: tuple[str, ...]
    changed_at: datetime
    characters: int
    refused: tuple[str, ...] = ()

    def is_open_to(self, reader: Reader) -> bool:
        """Whether a reader may see it."""
        is_tenant = self.tenant == EVERYBODY or (bool(reader.tenant) and self.tenant == reader.tenant)
        return is_tenant and not reader.labels.isdisjoint(self.readers)


class IndexManifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All documents of a store at one time. `sequence` only grows, so that an old one can be told.

    `policy` and `detectors` are the digests of what scanned them.
    """

    name: str
    sequence: int
    created_at: datetime
    policy: Digest
    detectors: Digest
    documents: tuple[IndexedDocument, ...]
    format: int = FORMAT

    @cached_property
    def payload(self) -> bytes:
        """What is signed: canonical JSON."""
        return canonical_json(self)

    @cached_property
    def digest(self) -> Digest:
        """The index digest of a component set."""
        return digest_bytes(self.payload)

    @cached_property
    def by_id(self) -> Mapping[str, IndexedDocument]:
        """Documents by id, case ignored: citations do not keep it."""
        return {document.id.casefold(): document for document in self.documents}

    def find(self, document_id: str) -> IndexedDocument | None:
        """The document of this id."""
        return self.by_id.get(document_id.casefold())


class IndexReport(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that was made, and how many documents the scan refused."""

    manifest: IndexManifest
    refused: tuple[IndexedDocument, ...]


def build_index(
    documents: Iterable[SourceDocument],
    guard: Guard,
    *,
    name: str,
    sequence: int,
    clock: Clock | None = None,
) -> IndexReport:
    """Scan every document as retrieved text, and list it with the digest of its words.

    Raises:
        UsageError: for an id, a label or a date that cannot be used, an id given twice, or a guard without a
            policy: a manifest must not say that something was scanned which was not.
    """
    if guard.policy is None:
        raise UsageError(
            "an index needs a guard with a policy to scan its documents.", hint="Guard.load(...)"
        )
    entries: dict[str, IndexedDocument] = {}
    for number, document in enumerate(documents, 1):
        entry = _entry(document, f"document {number}", guard)
        if entry.id.casefold() in entries:
            raise UsageError(f"document {number}: id {entry.id!r} is used twice (case does not count).")
        entries[entry.id.casefold()] = entry
    components = guard.components
    manifest = IndexManifest(
        name=name,
        sequence=sequence,
        created_at=(clock or SystemClock()).now(),
        policy=components.policy,
        detectors=components.detectors,
        documents=tuple(entries[key] for key in sorted(entries)),
    )
    return IndexReport(manifest=manifest, refused=tuple(one for one in manifest.documents if one.refused))


def _entry(document: SourceDocument, where: str, guard: Guard) -> IndexedDocument:
    if not _ID.fullmatch(document.id):
        raise UsageError(
            f"{where}: id {document.id[:80]!r} cannot be cited.",
            hint="Letters, digits and _./- only, a letter or digit first, at most 200.",
        )
    if not document.tenant or not document.readers:
        raise UsageError(
            f"{where}: {document.id!r} needs a tenant and readers.",
            hint="Write '*' for all tenants, or for every reader of a tenant.",
        )
    for label in document.readers:
        if not _LABEL.fullmatch(label):
            raise UsageError(
                f"{where}: reader {label[:80]!r} is no label.", hint="Write user:NAME, group:NAME or '*'."
            )
    if document.changed_at.tzinfo is None:
        raise UsageError(f"{where}: changed_at of {document.id!r} has no time zone.", hint="End it with Z.")
    checked = guard.check(document.text, surface=Surface.RETRIEVED)
    refused: tuple[str, ...] = ()
    if not checked.allowed:
        categories = [finding.category for finding in checked.decision.findings]
        refused = tuple(sorted(set(categories))) or ("check.failed",)
    return IndexedDocument(
        id=document.id,
        digest=digest_text(document.text),
        source=document.source,
        tenant=document.tenant,
        readers=tuple(sorted(set(document.readers))),
        changed_at=document.changed_at,
        characters=len(document.text),
        refused=refused,
    )


def sign_index(manifest: IndexManifest, key: Ed25519PrivateKey) -> Envelope:
    """The manifest in a signed envelope."""
    return sign(manifest.payload, payload_type=PAYLOAD_TYPE, key=key)


def write_index(path: Path, envelope: Envelope) -> None:
    """Write a signed manifest in one step."""
    replace_file(path, msgspec.json.encode(envelope))


def load_index(path: Path, keys: Mapping[str, Ed25519PublicKey], *, least_sequence: int = 0) -> IndexManifest:
    """The manifest of a file, if a trusted key signed it.

    `least_sequence` is the last one that was used: an older manifest, though signed, is refused.

    Raises:
        UsageError: when the file cannot be read.
        IntegrityError: for a signature, shape or sequence that does not fit.
    """
    envelope = read_envelope(path, max_bytes=LARGEST_MANIFEST)
    return verified_index(envelope, keys, least_sequence=least_sequence, name=str(path))


def index_from_bytes(
    data: bytes, keys: Mapping[str, Ed25519PublicKey], *, least_sequence: int = 0
) -> IndexManifest:
    """The same from memory."""
    envelope = envelope_of(data, name="the index", max_bytes=LARGEST_MANIFEST)
    return verified_index(envelope, keys, least_sequence=least_sequence, name="the index")


def verified_index(
    envelope: Envelope,
    keys: Mapping[str, Ed25519PublicKey],
    *,
    least_sequence: int = 0,
    name: str,
) -> IndexManifest:
    """The manifest of an envelope, if a trusted key signed it.

    Raises:
        IntegrityError: for a signature, shape or sequence that does not fit.
    """
    try:
        payload = verified(envelope, payload_type=PAYLOAD_TYPE, keys=keys)
    except IntegrityError as error:
        raise IntegrityError(f"{name}: {error.message}", hint=error.hint) from error
    try:
        manifest = msgspec.json.decode(payload, type=IndexManifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise IntegrityError(f"{name}: what was signed is no index manifest.") from error
    if manifest.format != FORMAT:
        raise IntegrityError(f"{name}: format {manifest.format} is not understood, only {FORMAT}.")
    if manifest.sequence < least_sequence:
        raise IntegrityError(
            f"{name}: sequence {manifest.sequence} is older than {least_sequence}, which was in use.",
            hint="Index again, or say the sequence that you want to go back to.",
        )
    if len(manifest.by_id) != len(manifest.documents):
        raise IntegrityError(f"{name}: an id is used twice.")
    return manifest


def changed_documents(
    manifest: IndexManifest, documents: Iterable[tuple[str, str]]
) -> Sequence[tuple[str, str]]:
    """Ids that differ from the manifest, with what differs: `changed`, `not indexed`, `missing`.

    `documents` are ids and texts as the store holds them now.
    """
    seen: set[str] = set()
    found: list[tuple[str, str]] = []
    for document_id, text in documents:
        entry = manifest.find(document_id)
        seen.add(document_id.casefold())
        if entry is None:
            found.append((document_id, "not indexed"))
        elif entry.digest != digest_text(text):
            found.append((document_id, "changed"))
    found.extend((one.id, "missing") for one in manifest.documents if one.id.casefold() not in seen)
    return found
