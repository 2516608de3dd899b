"""Calibrations that a policy names: read, checked against the installed detector, and turned into numbers.

A policy is compared, digested and applied with the numbers only; nothing is calibrated again when it loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.codec import Digest, short
from stanchion.core.errors import FilesError, Problem, StanchionError, UsageError
from stanchion.core.origin import Origin
from stanchion.detectors.calibration_file import LoadedCalibration, load_calibration, with_environment
from stanchion.detectors.registry import with_base
from stanchion.files.document import Step
from stanchion.files.references import project_root, resolve_inside
from stanchion.files.schema import Loaded
from stanchion.guard.policy_file import CalibrationEntry, PolicyFile
from stanchion.guard.policy_model import EVERY_CATEGORY, DetectorSettings, Source

AGAIN = "Calibrate again with `stanchion calibrate`, and review the new file."


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What the calibrations of one detector say: the settings that they stand for, and their files."""

    said: dict[str, Any]
    loaded: tuple[LoadedCalibration, ...]
    sources: tuple[Source, ...]


def resolve(file: Loaded[PolicyFile]) -> tuple[dict[str, Resolved], list[Problem]]:
    """The calibrations that a policy file names, by detector, and everything that is wrong with them."""
    found: dict[str, Resolved] = {}
    problems: list[Problem] = []
    for name, entry in file.value.detectors.items():
        loaded = []
        for number, one in enumerate(entry.calibration):
            try:
                loaded.append(_read(file, one))
            except FilesError as error:
                problems.append(_cannot(file, name, number, "there are problems in its file."))
                problems.extend(error.problems)
            except UsageError as error:
                problems.append(_cannot(file, name, number, error.message, hint=error.hint))
        if loaded:
            found[name] = _resolved(loaded)
    return found, problems


def problems_with(
    file: Loaded[PolicyFile],
    resolved: Mapping[str, Resolved],
    detectors: Mapping[str, DetectorSettings],
    registry: Any,
    *,
    env: Mapping[str, str] | None = None,
) -> Iterator[Problem]:
    """Where a calibration does not hold for the detector as this policy makes it."""
    for name, one in resolved.items():
        settings = detectors[name]
        version = ""
        try:
            version = _version(name, settings, file.path, registry)
        except StanchionError as error:
            message = f"detector {name!r} cannot be made, so its version is not known: {error.message}"
            yield _cannot(file, name, 0, message, hint=error.hint)
            continue
        for number, loaded in enumerate(one.loaded):
            fault = loaded.mismatch(name, version)
            if fault:
                yield _cannot(file, name, number, fault, hint=AGAIN)
            elif not _same_options(with_environment(loaded.value.detector.options, env), settings.options):
                message = "it was made with other options than this policy gives the detector."
                yield _cannot(file, name, number, message, hint=AGAIN)


def _read(file: Loaded[PolicyFile], entry: CalibrationEntry) -> LoadedCalibration:
    path = resolve_inside(entry.file, folder=file.path.parent, root=project_root(file.path))
    loaded = load_calibration(path)
    held = loaded.value.digest
    if entry.digest and held != entry.digest:
        raise UsageError(
            f"this policy is pinned to {short(entry.digest)}, the file is {short(held)}.",
            hint="Review the new calibration, then pin its digest.",
        )
    return loaded


def _resolved(loaded: list[LoadedCalibration]) -> Resolved:
    """The settings, with everything that an earlier calibration said set back."""
    thresholds: dict[str, float] = {}
    by_origin: dict[str, dict[Origin, float]] = {}
    said: dict[str, Any] = {"report_from": None}
    minima = []
    for one in loaded:
        value = one.value
        for selector in value.detector.categories or (EVERY_CATEGORY,):
            if selector == EVERY_CATEGORY:
                said["threshold"] = value.threshold
            else:
                thresholds[selector] = value.threshold
            if value.origins:
                by_origin[selector] = dict(value.origins)
        if value.minimum is not None:
            minima.append(value.minimum)
    if minima:
        said["report_from"] = min(minima)
    said["thresholds"] = thresholds
    said["origin_thresholds"] = by_origin
    said["calibrations"] = tuple(one.value.digest for one in loaded)
    sources = tuple(Source(file=str(one.path), digest=_digest(one)) for one in loaded)
    return Resolved(said=said, loaded=tuple(loaded), sources=sources)


def _digest(loaded: LoadedCalibration) -> Digest:
    return loaded.value.digest


def _version(name: str, settings: DetectorSettings, path: Path, registry: Any) -> str:
    options = with_base(settings.creation_options, path.parent)
    return str(registry.create(name, **options).version)


def _same_options(calibrated: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether scores are the same; `minimum` only leaves findings out."""
    first = {key: value for key, value in calibrated.items() if key != "minimum"}
    return first == {key: value for key, value in given.items() if key != "minimum"}


def _cannot(
    file: Loaded[PolicyFile], name: str, number: int, why: str, *, hint: str | None = None
) -> Problem:
    at: tuple[Step, ...] = ("detectors", name, "calibration")
    written = file.document.value["detectors"][name].get("calibration")
    if isinstance(written, list):
        at = (*at, number)
    entry = file.value.detectors[name].calibration[number]
    return file.document.problem(
        at, rule="calibration", message=f"calibration {entry.file!r} cannot be used: {why}", hint=hint
    )
