"""Installed content packs: a folder that only verified packs get into, and the detectors that they bring.

A version that was just installed is *shadowed*: its detector `pack.NAME.next` runs and is recorded only. To
*enable* it makes it `pack.NAME`, which decides; the version before is kept, and a rollback brings it back.
What was enabled goes on deciding until the next one is. Signature and digests are verified again whenever a
pack is loaded.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.core.errors import IntegrityError, UnknownNameError, UsageError
from stanchion.core.finding import DetectorInput, Finding
from stanchion.detectors.custom import CustomDetector
from stanchion.detectors.pack_file import (
    ENVELOPE,
    ContentKind,
    Pack,
    PackManifest,
    check_files,
    open_pack,
    verified_manifest,
)
from stanchion.detectors.scan import Scanner
from stanchion.files.keys import read_envelope, replace_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PREFIX = "pack"
NEXT = ".next"
STATE = "state.json"
LARGEST_PACK = 256 * 1024 * 1024
_LARGEST_MANIFEST = 4 * 1024 * 1024
_MOST_FORMER = 20


class InstalledPack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a pack stands: versions that decide, run in shadow, and can be gone back to (oldest first).

    `highest` is the highest version that was ever installed: an older one is not taken again.
    """

    name: str
    highest: str
    enabled: str = ""
    shadowed: str = ""
    former: tuple[str, ...] = ()


class ActiveDetector(msgspec.Struct, frozen=True, kw_only=True):
    """A detector that a pack brings: its id, and whether it only records."""

    id: str
    pack: str
    version: str
    shadowed: bool


class PackDetector(CustomDetector):
    """Reports what the patterns of a pack find; their ids begin with `pack.`."""

    def __init__(self, scanner: Scanner, *, detector_id: str) -> None:
        self.id = detector_id
        self.scanner = self._scanner = scanner
        self.version = f"1+{scanner.digest_for(PREFIX).removeprefix('sha256:')[:12]}"
        self.categories = tuple(sorted({pattern.category for pattern in scanner.patterns}))

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        from stanchion.detectors.matching import findings_from_hits

        view_set = detector_input.view_set
        return findings_from_hits(self.id, self.version, self.scanner.hits_for(view_set, PREFIX), view_set)


class PackModelDetector:
    """A pack's classifier under the pack's name."""

    def __init__(self, inner: Any, *, detector_id: str, pack: Digest) -> None:
        self.id = detector_id
        self.version = f"{inner.version}+{pack.removeprefix('sha256:')[:12]}"
        self.categories, self.reach, self.cost = inner.categories, inner.reach, inner.cost
        self._inner = inner

    def prepare(self) -> None:
        """Load the model."""
        prepare = getattr(self._inner, "prepare", None)
        if callable(prepare):
            prepare()

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """What the model finds."""
        found: Sequence[Finding] = self._inner.detect(detector_input)
        return found


class PackStore:
    """Packs in a folder. Changes are made by one process at a time and become visible whole."""

    def __init__(
        self, folder: Path, keys: Mapping[str, Ed25519PublicKey], *, cache_dir: Path | None = None
    ) -> None:
        """`keys` are the pinned public keys by key id; a pack that none of them signed is never used."""
        self._folder = folder
        self._keys = keys
        self._cache_dir = cache_dir

    # --- looking ---

    def installed(self) -> tuple[InstalledPack, ...]:
        """All packs, by name.

        Raises:
            IntegrityError: when the folder's state cannot be read.
        """
        return tuple(sorted(self._state().values(), key=lambda pack: pack.name))

    def find(self, name: str) -> InstalledPack:
        """One pack.

        Raises:
            UnknownNameError: when it is not installed.
        """
        state = self._state()
        if name not in state:
            raise UnknownNameError("pack", name, state)
        return state[name]

    @property
    def stamp(self) -> Digest:
        """Changes whenever another version of any pack is enabled or shadowed."""
        return digest(self.installed())

    def active(self) -> tuple[ActiveDetector, ...]:
        """The detectors of enabled and shadowed versions that bring one."""
        found = []
        for pack in self.installed():
            for version, suffix in ((pack.enabled, ""), (pack.shadowed, NEXT)):
                if version and _brings_a_detector(self.manifest(pack.name, version)):
                    found.append(
                        ActiveDetector(
                            id=f"{PREFIX}.{pack.name}{suffix}",
                            pack=pack.name,
                            version=version,
                            shadowed=bool(suffix),
                        )
                    )
        return tuple(found)

    def manifest(self, name: str, version: str) -> PackManifest:
        """The signed manifest of a version that is here; its files are not read.

        Raises:
            IntegrityError: when it is not signed by a pinned key, or is another pack's.
        """
        folder = self._place(name, version)
        try:
            envelope = read_envelope(folder / ENVELOPE, max_bytes=_LARGEST_MANIFEST)
        except UsageError as error:
            raise IntegrityError(f"pack {name} {version}: {error.message}") from error
        manifest = verified_manifest(envelope, self._keys, name=f"pack {name} {version}")
        if (manifest.name, manifest.version) != (name, version):
            raise IntegrityError(
                f"pack {name} {version}: here lies {manifest.name} {manifest.version} instead."
            )
        return manifest

    def verify(self, name: str, version: str) -> PackManifest:
        """The manifest, after every file was held against it.

        Raises:
            IntegrityError: for a file that is missing, added or changed.
        """
        manifest = self.manifest(name, version)
        check_files(manifest, self._contents(name, version), name=f"pack {name} {version}")
        return manifest

    def files(self, name: str, kind: ContentKind, *, version: str = "") -> tuple[Path, ...]:
        """Where a pack's verified files of a kind are: of the enabled version, or of the one named.

        Raises:
            UsageError: when no version is enabled.
            IntegrityError: when they are not what was signed.
        """
        version = version or self.find(name).enabled
        if not version:
            raise UsageError(
                f"pack {name!r} is not enabled.", hint=f"Enable it: stanchion packs enable {name}"
            )
        folder = self._place(name, version)
        return tuple(folder / file.path for file in self.verify(name, version).of_kind(kind))

    def create(self, detector_id: str, **options: Any) -> Any:
        """A detector of an active pack, from verified files.

        Raises:
            UnknownNameError: when no active pack brings it.
            UsageError: for options: a pack brings its own.
            IntegrityError: when a file is not what was signed.
        """
        known = {one.id: one for one in self.active()}
        if detector_id not in known:
            raise UnknownNameError("detector", detector_id, known)
        if set(options) - {"scanner"}:
            raise UsageError(f"detector {detector_id!r} takes no options.", hint="Leave them out.")
        one = known[detector_id]
        manifest = self.verify(one.pack, one.version)
        return self._detector(manifest, self._place(one.pack, one.version), detector_id)

    # --- changing ---

    def check(self, data: bytes, *, name: str) -> Pack:
        """A pack that could be installed now; nothing is changed.

        Raises:
            IntegrityError: for a signature, a file or a version that does not fit.
            FilesError: for patterns that are not in order.
        """
        pack = open_pack(data, self._keys, name=name)
        before = self._state().get(pack.manifest.name)
        if before is not None and pack.manifest.number < _number(before.highest):
            raise IntegrityError(
                f"{name}: {pack.manifest.name} {pack.manifest.version} is older than {before.highest}, "
                "which was installed.",
                hint=f"Go back with: stanchion packs rollback {pack.manifest.name}",
            )
        if before is not None and pack.manifest.number == _number(before.highest):
            kept = self.manifest(pack.manifest.name, before.highest)
            if kept.digest != pack.manifest.digest:
                raise IntegrityError(
                    f"{name}: another {pack.manifest.name} {before.highest} is installed already.",
                    hint="A change needs a higher version.",
                )
        return pack

    def install(self, data: bytes, *, name: str) -> InstalledPack:
        """Put a pack in, shadowed; installing the same again changes nothing.

        Raises:
            IntegrityError: for a signature, a file or a version that does not fit.
            FilesError: for patterns that are not in order, or whose examples do not hold.
        """
        with self._locked():
            pack = self.check(data, name=name)
            manifest = pack.manifest
            state = self._state()
            before = state.get(manifest.name)
            if before is not None and before.highest == manifest.version:
                return before
            self._unpack(pack)
            if not _brings_a_detector(manifest):  # nothing to shadow: it can be used at once
                former = before.former if before is not None else ()
                enabled = (before.enabled,) if before is not None and before.enabled else ()
                after = InstalledPack(
                    name=manifest.name,
                    highest=manifest.version,
                    enabled=manifest.version,
                    former=(*former, *enabled)[-_MOST_FORMER:],
                )
            else:
                start = before or InstalledPack(name=manifest.name, highest=manifest.version)
                after = msgspec.structs.replace(start, highest=manifest.version, shadowed=manifest.version)
            self._write({**state, manifest.name: after})
            return after

    def enable(self, name: str) -> InstalledPack:
        """Let the shadowed version decide.

        Raises:
            UsageError: when none is shadowed.
            IntegrityError: when its files are not what was signed.
        """
        with self._locked():
            before = self.find(name)
            if not before.shadowed:
                raise UsageError(f"pack {name!r} has no version in shadow.", hint="Install one first.")
            self.verify(name, before.shadowed)
            former = (*before.former, before.enabled) if before.enabled else before.former
            after = msgspec.structs.replace(
                before, enabled=before.shadowed, shadowed="", former=former[-_MOST_FORMER:]
            )
            self._write({**self._state(), name: after})
            return after

    def rollback(self, name: str) -> InstalledPack:
        """Go back one step: drop the shadowed version, else bring back what was enabled before.

        Raises:
            UsageError: when there is nothing to go back to.
            IntegrityError: when the files of the version before are not what was signed.
        """
        with self._locked():
            before = self.find(name)
            if before.shadowed:
                after = msgspec.structs.replace(before, shadowed="")
            elif before.former:
                self.verify(name, before.former[-1])
                after = msgspec.structs.replace(before, enabled=before.former[-1], former=before.former[:-1])
            elif before.enabled:
                after = msgspec.structs.replace(before, enabled="")
            else:
                raise UsageError(f"pack {name!r} has nothing to go back to.")
            self._write({**self._state(), name: after})
            return after

    # --- inside ---

    def _place(self, name: str, version: str) -> Path:
        return self._folder / name / version

    def _unpack(self, pack: Pack) -> None:
        """Write the files beside their place, try what they bring, and move them there in one step."""
        manifest = pack.manifest
        place = self._place(manifest.name, manifest.version)
        part = place.with_name(f".{manifest.version}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            for path, data in {**pack.files, ENVELOPE: msgspec.json.encode(pack.envelope)}.items():
                target = part / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            if _brings_a_detector(manifest):
                self._detector(manifest, part, f"{PREFIX}.{manifest.name}{NEXT}", with_examples=True)
            shutil.rmtree(place, ignore_errors=True)  # left behind by an installation that was cut off
            part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _detector(
        self, manifest: PackManifest, folder: Path, detector_id: str, *, with_examples: bool = False
    ) -> Any:
        if manifest.model is not None:
            from stanchion.detectors.sequence_classifier import create

            inner = create(
                scanner=Scanner((), cache_dir=self._cache_dir),
                folder=str((folder / manifest.model.folder).absolute()),
                configuration=manifest.model.configuration,
                overrides=manifest.model.overrides or None,
            )
            return PackModelDetector(inner, detector_id=detector_id, pack=manifest.digest)
        from stanchion.detectors.catalogue import load_catalogues
        from stanchion.detectors.examples import run_examples

        paths = [folder / file.path for file in manifest.of_kind(ContentKind.PATTERNS)]
        catalogues = load_catalogues(paths, detectors=(PREFIX,), cache_dir=self._cache_dir)
        scanner = Scanner(catalogues, cache_dir=self._cache_dir)
        failures = run_examples(scanner).failures if with_examples else ()
        if failures:
            first = failures[0]
            raise UsageError(
                f"pack {manifest.name} {manifest.version}: {len(failures)} examples fail; the first is "
                f"{first.kind} {first.number} of {first.pattern}: {first.what}."
            )
        return PackDetector(scanner, detector_id=detector_id)

    def _contents(self, name: str, version: str) -> dict[str, bytes]:
        """Every file of a version's folder by its relative name; links are not followed."""
        folder = self._place(name, version)
        found: dict[str, bytes] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                raise IntegrityError(f"pack {name} {version}: {path.name!r} is a link.")
            if path.is_file() and path != folder / ENVELOPE:
                try:
                    found[path.relative_to(folder).as_posix()] = path.read_bytes()
                except OSError as error:
                    raise IntegrityError(f"pack {name} {version}: {path.name!r} cannot be read.") from error
        return found

    def _state(self) -> dict[str, InstalledPack]:
        path = self._folder / STATE
        try:
            wire = path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise IntegrityError(f"{path}: the state of packs cannot be read.") from error
        try:
            packs = msgspec.json.decode(wire, type=tuple[InstalledPack, ...])
        except (msgspec.DecodeError, RecursionError) as error:
            raise IntegrityError(f"{path}: this is no state of packs.") from error
        return {pack.name: pack for pack in packs}

    def _write(self, state: Mapping[str, InstalledPack]) -> None:
        replace_file(self._folder / STATE, msgspec.json.encode(tuple(state.values())))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_pack(path: Path) -> bytes:
    """The bytes of a pack's file.

    Raises:
        UsageError: when it cannot be read.
        IntegrityError: when it is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_PACK + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}.") from error
    if len(data) > LARGEST_PACK:
        raise IntegrityError(f"{path}: larger than {LARGEST_PACK:,} bytes.")
    return data


def _brings_a_detector(manifest: PackManifest) -> bool:
    return manifest.model is not None or bool(manifest.of_kind(ContentKind.PATTERNS))


def _number(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (4 - len(parts)))
