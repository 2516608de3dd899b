"""Detectors by id: a table of lazy factories, and what other packages register as entry points."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.finding import AsyncDetector, Detector
from stanchion.core.target import Target
from stanchion.detectors.options import check_options, option_error
from stanchion.detectors.scan import Scanner, packaged_scanner

ENTRY_POINT_GROUP = "stanchion.detectors"
# Options whose paths start at the file that gives them.
FILE_OPTIONS = frozenset({"files", "rubric", "folder", "configuration"})
AnyDetector = Detector | AsyncDetector
Factory = Callable[..., AnyDetector]
ModelFactory = Callable[[str], Target]

BUILTIN: Mapping[str, str] = {
    "secrets": "stanchion.detectors.secrets:create",
    "pii": "stanchion.detectors.pii:create",
    "injection.patterns": "stanchion.detectors.injection:create",
    "injection.linear": "stanchion.detectors.linear:create",
    "injection.encoder": "stanchion.detectors.encoder:create",
    "obfuscation": "stanchion.detectors.obfuscation:create",
    "leakage": "stanchion.detectors.leakage:create",
    "refusal": "stanchion.detectors.refusal:create",
    "grounding": "stanchion.detectors.grounding:create",
    "judge": "stanchion.detectors.judge:create",
    "content.judge": "stanchion.detectors.judge:create_content",
    "grounding.judge": "stanchion.detectors.judge:create_grounding",
    "refusal.judge": "stanchion.detectors.judge:create_refusal",
    "content": "stanchion.detectors.content:create",
    "model.generative_guard": "stanchion.detectors.generative_guard:create",
    "model.sequence_classifier": "stanchion.detectors.sequence_classifier:create",
    "moderation.azure": "stanchion.detectors.moderation:create_azure",
    "moderation.openai": "stanchion.detectors.moderation:create_openai",
    "ner.spacy": "stanchion.detectors.ner_spacy:create",
    "pii.presidio": "stanchion.detectors.pii_presidio:create",
    "code": "stanchion.detectors.code:create",
    "context": "stanchion.detectors.context_signals:create",
    "custom": "stanchion.detectors.custom:create",
}


class Registry:
    """Makes detectors; every factory is called as `create(scanner=..., **options)`.

    A package offers a detector with an entry point in the group `stanchion.detectors`: its name is the id,
    its value `module:factory`. A packaged id cannot be taken over.
    """

    def __init__(
        self,
        scanner: Scanner | None = None,
        *,
        models: ModelFactory | None = None,
        services: Callable[[str], Any] | None = None,
        packs: Any = None,
    ) -> None:
        """`packs` is a `packs.PackStore`, whose detectors are offered beside the others.

        `models` makes the models of the detectors that ask one, by name.

        `services` gives address and key of a provider's service (`moderation.Service`) by the detector's id.
        """
        self._scanner = scanner
        self._packs = packs
        self._given = {"models": models, "services": services}

    @property
    def scanner(self) -> Scanner:
        """The scanner that all detectors share; the packaged one unless another was given."""
        if self._scanner is None:
            self._scanner = packaged_scanner()
        return self._scanner

    def ids(self) -> tuple[str, ...]:
        """All ids that can be made, packaged ones first, each part sorted."""
        return (*sorted(BUILTIN), *sorted(_offered()), *(one.id for one in self.active_packs))

    @property
    def active_packs(self) -> tuple[Any, ...]:
        """The detectors of content packs (`packs.ActiveDetector`).

        Raises:
            IntegrityError: when a pack is not what was signed.
        """
        return () if self._packs is None else self._packs.active()

    def provider(self, detector_id: str) -> str:
        """The distribution that the detector comes from.

        Raises:
            UnknownNameError: when nothing is registered under the id.
        """
        if detector_id in BUILTIN:
            return "stanchion"
        if self._is_packed(detector_id):
            return "pack"
        point = self._entry_point(detector_id)
        return point.dist.name if point.dist is not None else "unknown"

    def create(self, detector_id: str, **options: Any) -> AnyDetector:
        """A detector.

        Raises:
            UnknownNameError: when nothing is registered under the id.
            OptionError: when it does not take one of the options: its name, its type, its value.
            UsageError: when its package cannot be loaded, or for what it says of options itself.
        """
        if self._is_packed(detector_id):
            packed: AnyDetector = self._packs.create(detector_id, **options)
            return packed
        factory = self.factory(detector_id)
        check_options(detector_id, factory, options)
        signature = inspect.signature(factory)
        own = {name: one for name, one in self._given.items() if one and name in signature.parameters}
        arguments = {"scanner": self.scanner, **own, **options}
        try:
            return factory(**arguments)
        except msgspec.ValidationError as error:
            raise option_error(detector_id, error) from error

    def factory(self, detector_id: str) -> Factory:
        """What makes a detector.

        Raises:
            UnknownNameError: when nothing is registered under the id.
            UsageError: when its package cannot be loaded.
        """
        if detector_id in BUILTIN:
            module, _, name = BUILTIN[detector_id].partition(":")
            factory: Factory = getattr(import_module(module), name)
            return factory
        if self._is_packed(detector_id):
            return lambda *, scanner: self._packs.create(detector_id)
        point = self._entry_point(detector_id)
        try:
            loaded: Factory = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"detector {detector_id!r} of {self.provider(detector_id)} cannot be loaded: {error}.",
                hint="Install what it needs, or remove the package.",
            ) from error
        return loaded

    def _is_packed(self, detector_id: str) -> bool:
        return self._packs is not None and any(one.id == detector_id for one in self._packs.active())

    def _entry_point(self, detector_id: str) -> EntryPoint:
        offered = _offered()
        if detector_id not in offered:
            raise UnknownNameError("detector", detector_id, self.ids())
        return offered[detector_id]


def with_base(options: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """A detector's options; the files that they name start at `folder` and stay inside its project."""
    names_files = folder is not None and not FILE_OPTIONS.isdisjoint(options)
    return {**options, "base": folder} if names_files else dict(options)


def _offered() -> dict[str, EntryPoint]:
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {
        name: point
        for name, point in points.items()
        if name not in BUILTIN and not name.startswith("pack.")  # those come from signed packs only
    }
