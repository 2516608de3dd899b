"""A content pack: patterns, corpora, catalogues and weights in one signed file.

The file is a zip. Its member `pack.dsse.json` is a DSSE envelope around the manifest, which names every other
member with its digest. Nothing that the manifest does not name is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pydantic

from stanchion.core.codec import Digest, canonical_json, digest_bytes
from stanchion.core.errors import IntegrityError, UsageError
from stanchion.core.signatures import Envelope, sign, verified
from stanchion.files.archive import name_fault, read_archive, write_archive
from stanchion.files.keys import envelope_of
from stanchion.files.schema import FileModel, load_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.stanchion.pack+json"
ENVELOPE = "pack.dsse.json"
DESCRIPTION = "pack.yaml"
FORMAT = 1
_LARGEST_MANIFEST = 4 * 1024 * 1024
_NAME = r"^[a-z][a-z0-9_-]{0,63}$"
_VERSION = r"^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){0,3}$"


class ContentKind(StrEnum):
    """What a file of a pack is for."""

    PATTERNS = "patterns"
    CORPUS = "corpus"
    CATALOGUE = "catalogue"
    WEIGHTS = "weights"


class PackedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: its place in the pack and what must stand there."""

    path: str
    kind: ContentKind
    digest: Digest
    size: int


class PackedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sequence classifier of the pack's weights; the fields are options of `model.sequence_classifier`.

    `folder` is a place in the pack.
    """

    folder: str
    configuration: str = "prompt_guard_2"
    overrides: dict[str, Any] = {}


class PackManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in a pack. `format` is that of the manifest itself."""

    name: str
    version: str
    title: str
    source: str
    files: tuple[PackedFile, ...]
    model: PackedModel | None = None
    format: int = FORMAT

    @property
    def digest(self) -> Digest:
        """The identity of the pack: everything in it, by digest."""
        return digest_bytes(canonical_json(self))

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers, to compare; `1.0` and `1` are the same."""
        parts = [int(part) for part in self.version.split(".")]
        return tuple(parts + [0] * (4 - len(parts)))

    def of_kind(self, kind: ContentKind) -> tuple[PackedFile, ...]:
        """The files of one kind, in order."""
        return tuple(file for file in self.files if file.kind is kind)


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """A pack whose signature and digests are good."""

    manifest: PackManifest
    envelope: Envelope
    files: dict[str, bytes]


class ModelEntry(FileModel):
    """`model:` of a description."""

    folder: str
    configuration: str = "prompt_guard_2"
    overrides: dict[str, Any] = pydantic.Field(default_factory=dict)


class DescriptionModel(FileModel):
    """`pack.yaml`: what goes into a pack, with paths from its folder."""

    pack: Annotated[str, pydantic.Field(pattern=_NAME)]
    version: Annotated[str, pydantic.Field(pattern=_VERSION)]
    format: Literal[1] = 1
    title: str = ""
    source: str = ""
    patterns: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    catalogues: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    model: ModelEntry | None = None


def build_pack(folder: Path, key: Ed25519PrivateKey) -> tuple[PackManifest, bytes]:
    """The pack that `pack.yaml` of a folder describes, and the bytes of its file.

    Raises:
        FilesError: with every problem of the description.
        UsageError: for a file that is missing, outside, a link, or named twice; for an empty pack.
    """
    described = load_file(folder / DESCRIPTION, DescriptionModel).value
    listed = [
        *((name, ContentKind.PATTERNS) for name in described.patterns),
        *((name, ContentKind.CORPUS) for name in described.corpora),
        *((name, ContentKind.CATALOGUE) for name in described.catalogues),
        *((name, ContentKind.WEIGHTS) for name in described.weights),
    ]
    if not listed:
        raise UsageError(f"{folder / DESCRIPTION}: the pack is empty.", hint="List its files.")
    contents = {name: _content(folder, name) for name, _ in listed}
    if len({name.casefold() for name in contents}) != len(listed):
        raise UsageError(f"{folder / DESCRIPTION}: a file is listed twice.")
    manifest = PackManifest(
        name=described.pack,
        version=described.version,
        title=described.title,
        source=described.source,
        files=tuple(
            PackedFile(path=name, kind=kind, digest=digest_bytes(contents[name]), size=len(contents[name]))
            for name, kind in sorted(listed)
        ),
        model=None if described.model is None else msgspec.convert(described.model.model_dump(), PackedModel),
    )
    envelope = sign(canonical_json(manifest), payload_type=PAYLOAD_TYPE, key=key)
    return manifest, write_archive({**contents, ENVELOPE: msgspec.json.encode(envelope)})


def _content(folder: Path, name: str) -> bytes:
    path = folder / name
    if name_fault(name) or name in (ENVELOPE, DESCRIPTION) or path.is_symlink():
        raise UsageError(
            f"{folder / DESCRIPTION}: {name!r} cannot be packed.", hint="A plain file below the folder."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or type(error).__name__}.") from error


def open_pack(data: bytes, keys: Mapping[str, Ed25519PublicKey], *, name: str) -> Pack:
    """A pack, if a trusted key signed it and every file is what was signed.

    Raises:
        IntegrityError: with what does not fit; `name` is what it calls the file.
    """
    files = read_archive(data, name=name)
    wire = files.pop(ENVELOPE, None)
    if wire is None:
        raise IntegrityError(f"{name}: there is no {ENVELOPE}, so nothing says who made it.")
    envelope = envelope_of(wire, name=name, max_bytes=_LARGEST_MANIFEST)
    manifest = verified_manifest(envelope, keys, name=name)
    check_files(manifest, files, name=name)
    return Pack(manifest=manifest, envelope=envelope, files=files)


def verified_manifest(envelope: Envelope, keys: Mapping[str, Ed25519PublicKey], *, name: str) -> PackManifest:
    """The manifest of an envelope, if a trusted key signed it.

    Raises:
        IntegrityError: for a signature or a shape that does not fit.
    """
    try:
        payload = verified(envelope, payload_type=PAYLOAD_TYPE, keys=keys)
        manifest = msgspec.json.decode(payload, type=PackManifest)
    except IntegrityError as error:
        raise IntegrityError(f"{name}: {error.message}", hint=error.hint) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise IntegrityError(f"{name}: what was signed is no manifest of a pack.") from error
    if manifest.format != FORMAT:
        raise IntegrityError(f"{name}: format {manifest.format} is not understood, only {FORMAT}.")
    if not re.fullmatch(_NAME, manifest.name) or not re.fullmatch(_VERSION, manifest.version):
        raise IntegrityError(f"{name}: its name or version cannot be used.")
    faulty = next((file.path for file in manifest.files if name_fault(file.path)), None)
    if faulty is not None:
        raise IntegrityError(f"{name}: it names {faulty[:80]!r}, which cannot be unpacked.")
    return manifest


def check_files(manifest: PackManifest, files: Mapping[str, Any], *, name: str) -> None:
    """Hold the bytes of files against a manifest.

    Raises:
        IntegrityError: for one that is missing, added or changed.
    """
    named = {file.path: file for file in manifest.files}
    odd = sorted(named.keys() ^ files.keys())
    if odd or len(named) != len(manifest.files):
        what = "missing" if odd and odd[0] in named else "not signed"
        raise IntegrityError(f"{name}: {odd[0][:80]!r} is {what}." if odd else f"{name}: a name twice.")
    for path, file in named.items():
        if len(files[path]) != file.size or digest_bytes(files[path]) != file.digest:
            raise IntegrityError(f"{name}: {path!r} is not what was signed.")
