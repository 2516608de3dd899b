"""`ner.spacy`: names of people and places by a spaCy pipeline that is installed or lies in a folder.

spaCy is a plug-in: it is loaded when a guard is made, or on the first text, and never asked to download a
model. Its models give no probabilities, so every entity has the configured score.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stanchion.core.codec import digest, digest_stream, short
from stanchion.core.errors import JudgementError, UnavailableError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.taxonomy import category
from stanchion.detectors.scan import Scanner
from stanchion.files.references import project_root, resolve_inside

ID = "ner.spacy"
CODE_VERSION = 2
LABELS: Mapping[str, str] = {
    "PERSON": "pii.person",
    "PER": "pii.person",
    "GPE": "pii.address",
    "LOC": "pii.address",
    "FAC": "pii.address",
}


class SpacyDetector:
    """Reports the entities of a pipeline whose labels are mapped, in the text as it came."""

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS

    def __init__(
        self,
        model: str,
        *,
        labels: Mapping[str, str] = LABELS,
        score: float = 0.85,
        max_characters: int = 100_000,
        pipeline: Any = None,
    ) -> None:
        """`pipeline` is one that is already loaded; else `model` is, on the first text."""
        for name in labels.values():
            category(name, where=f"detector {ID!r}, option 'labels'")
        if not 0.0 <= score <= 1.0 or max_characters < 1:
            raise UsageError(f"detector {ID!r}: score is 0 to 1, max_characters at least 1.")
        self._model = model
        self._labels = dict(labels)
        self._score = score
        self._most = max_characters
        self._pipeline = pipeline
        self._loading = threading.Lock()
        self.categories = tuple(sorted(set(labels.values())))
        given = _meta(pipeline) if pipeline is not None else ""
        identity = [CODE_VERSION, pipeline_identity(model), given, self._labels, score]
        self.version = f"{CODE_VERSION}+{short(digest(identity))}"

    def prepare(self) -> None:
        """Load the pipeline, so that no text waits for it.

        Raises:
            UsageError: when no model is configured, or it is not installed.
        """
        self._opened()

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Entities by position.

        Raises:
            JudgementError: when the text is longer than the limit.
            UsageError: when no model is configured, or it is not installed.
            UnavailableError: when the pipeline fails.
        """
        text = detector_input.text
        if len(text) > self._most:
            raise JudgementError(
                f"detector {ID!r}: the text has {len(text):,} characters, the limit is {self._most:,}.",
                hint="Raise its option `max_characters`.",
            )
        pipeline = self._opened()
        try:
            entities = pipeline(text).ents
        except Exception as error:  # a pipeline may hold anything
            raise UnavailableError(
                f"detector {ID!r}: the pipeline failed ({type(error).__name__})."
            ) from error
        return [self._finding(one) for one in entities if one.label_ in self._labels]

    def _opened(self) -> Any:
        with self._loading:
            if self._pipeline is None:
                self._pipeline = load_pipeline(self._model)
            return self._pipeline

    def _finding(self, entity: Any) -> Finding:
        name = self._labels[entity.label_]
        return Finding(
            detector=ID,
            version=self.version,
            category=name,
            score=self._score,
            location=Location(start=entity.start_char, end=entity.end_char),
            severity=category(name).severity,
            rule=f"{ID}.{entity.label_.lower()}",
            reason="an entity of the model",
        )


def load_pipeline(model: str) -> Any:
    """A pipeline that is an installed package or a folder; nothing is downloaded.

    Raises:
        UsageError: when there is none, or spaCy is not installed.
    """
    check_installed(ID)
    if not model:
        raise UsageError(f"detector {ID!r} has no model.", hint="Give it the option `model`.")
    import spacy

    if not Path(model).is_dir() and not spacy.util.is_package(model):
        raise UsageError(
            f"the spaCy model {model!r} is neither installed nor a folder.",
            hint="Install its package; nothing is downloaded here.",
        )
    try:
        return spacy.load(model)
    except Exception as error:  # of spaCy, thinc or the package itself
        raise UsageError(
            f"the spaCy model {model!r} cannot be loaded ({type(error).__name__}).",
            hint="Is it made for this version of spaCy?",
        ) from error


def pipeline_identity(model: str) -> dict[str, str]:
    """What the results of a pipeline depend on: name, files, version of spaCy; nothing is imported for it.

    The files are those of the folder, or of the installed package. A pipeline that is neither has none: it is
    an error on the first text.
    """
    folder = Path(model) if model else None
    if folder is not None and not folder.is_dir():
        spec = find_spec(model) if model.isidentifier() else None
        places = spec.submodule_search_locations if spec is not None else None
        folder = Path(next(iter(places))) if places else None
    files = _files_digest(_files(folder)) if folder is not None else ""
    return {"name": Path(model).name, "files": files, "spacy": installed_version("spacy")}


def installed_version(distribution: str) -> str:
    """The version of an installed distribution; empty without one."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _files(folder: Path) -> tuple[tuple[str, str, int, int], ...]:
    """(path, name inside the folder, size, time of change) of every file but compiled code, by name."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            told = path.stat()
            found.append((str(path), path.relative_to(folder).as_posix(), told.st_size, told.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=8)
def _files_digest(files: tuple[tuple[str, str, int, int], ...]) -> str:
    """The digest over names and contents; read again only when sizes or times of change differ."""
    contents = {}
    for path, name, _, _ in files:
        with Path(path).open("rb") as stream:
            contents[name] = str(digest_stream(stream))
    return str(digest(contents))


def _meta(pipeline: Any) -> str:
    """What a pipeline that is already loaded says of itself: language, name, version."""
    meta = getattr(pipeline, "meta", None)
    told = meta if isinstance(meta, Mapping) else {}
    return "/".join(str(told.get(key, "")) for key in ("lang", "name", "version"))


def check_installed(detector_id: str) -> None:
    """That spaCy is there; nothing is imported.

    Raises:
        UsageError: when it is not.
    """
    if find_spec("spacy") is None:
        raise UsageError(
            f"The detector {detector_id!r} needs spaCy, which is not installed.",
            hint="Install it: pip install spacy",
        )


def create(
    *,
    scanner: Scanner,
    model: str = "",
    folder: str = "",
    base: Path | None = None,
    labels: Mapping[str, str] | None = None,
    score: float = 0.85,
    max_characters: int = 100_000,
) -> SpacyDetector:
    """A pipeline by package name (`model`) or by `folder`, relative to the policy that names it.

    Raises:
        UsageError: when spaCy is not installed, or an option does not fit.
        UnknownNameError: for an unknown category in `labels`.
    """
    check_installed(ID)
    if folder and base is not None:
        folder = str(resolve_inside(folder, folder=base, root=project_root(base / "policy.yaml")))
    return SpacyDetector(
        folder or model,
        labels=LABELS if labels is None else labels,
        score=score,
        max_characters=max_characters,
    )
