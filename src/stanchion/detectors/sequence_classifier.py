"""`model.sequence_classifier`: any sequence classification model of a local folder.

The folder holds what such models are published as: `config.json` (its labels), `tokenizer.json`, and the
weights as `model.onnx` (extra `ml`) or `model.safetensors` (where the user has transformers and torch).
Nothing is downloaded, no code of the folder runs, no pickle is opened, and its digest can be pinned.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.errors import MissingExtraError, UnknownNameError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.resources import data_path, read_data_text
from stanchion.core.taxonomy import category
from stanchion.detectors.linear import readings
from stanchion.detectors.options import OptionError
from stanchion.detectors.scan import Scanner
from stanchion.detectors.sequence_model import FILES, SequenceModel, folder_digest, open_folder
from stanchion.files.references import project_root, resolve_inside

ID = "model.sequence_classifier"
CODE_VERSION = 2
NONE = "none"  # what a label is mapped to that stands for harmless text
CONFIGURATIONS = "classifiers"
Runtime = Literal["onnx", "transformers"]


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model's outputs are read.

    `labels` gives a category, or "none", for every label of the model. With `multi_label` each label has a
    probability of its own (sigmoid), else they share one (softmax). Logits are divided by `temperature`; a
    probability of `threshold` becomes a score of 0.5.
    """

    labels: dict[str, str]
    multi_label: bool = False
    temperature: float = 1.0
    threshold: float = 0.5
    thresholds: dict[str, float] = msgspec.field(default_factory=dict)
    window: int = 512
    stride: int = 384
    source: str = ""


class SequenceClassifier:
    """The worst window of each category, in the readings of a text that `injection.linear` reads too.

    Windows are in tokens and overlap, so that no part of a long text is left out.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS
    is_pure = True

    def __init__(
        self,
        configuration: Configuration,
        *,
        folder: Path | None,
        pinned: str = "",
        runtime: Runtime = "onnx",
        max_windows: int = 64,
        minimum: float = 0.5,
    ) -> None:
        self._configuration = configuration
        self._folder = folder
        self._pinned = pinned
        self._runtime = runtime
        self._most = max_windows
        self._minimum = minimum
        self._model: SequenceModel | None = None
        self._loading = threading.Lock()
        self.categories = tuple(sorted({c for c in configuration.labels.values() if c != NONE}))
        found = folder_digest(folder) if folder is not None else "unset"
        identity = [CODE_VERSION, msgspec.to_builtins(configuration), runtime, found]
        self.version = f"{CODE_VERSION}+{short(digest(identity))}"

    def prepare(self) -> None:
        """Open the model, so that no text waits for it.

        Raises:
            UsageError: when no folder is configured, or its labels are not mapped.
            IntegrityError: when the folder is not the pinned one, or cannot be opened.
        """
        self._opened()

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """At most one finding for each category and reading.

        Raises:
            UsageError: when no folder is configured, or the text has more windows than `max_windows`.
            IntegrityError: when the folder is not the pinned one, or cannot be opened.
            MissingExtraError: when the runtime is not installed.
        """
        model = self._opened()
        best: dict[str, Finding] = {}
        for view in readings(detector_input.view_set):
            for name, (score, start, end) in self._worst(model, view.text).items():
                if score >= self._minimum and (name not in best or score > best[name].score):
                    place = view.to_original(start, end)
                    best[name] = self._finding(name, score, place, view.name)
        return sorted(best.values(), key=lambda f: (f.location.start, f.location.end, f.category))

    def _worst(self, model: SequenceModel, text: str) -> dict[str, tuple[float, int, int]]:
        configuration = self._configuration
        windows = list(model.windows(text, size=configuration.window, stride=configuration.stride))
        if len(windows) > self._most:
            raise UsageError(
                f"detector {ID!r}: the text has {len(windows)} windows, the limit is {self._most}.",
                hint="Raise its option `max_windows`, or limit the length of texts in the policy.",
            )
        worst: dict[str, tuple[float, int, int]] = {}
        for window in windows:
            for name, score in self.scores(model.labels, model.logits(window.ids)).items():
                if name not in worst or score > worst[name][0]:
                    worst[name] = (score, window.start, window.end)
        return worst

    def scores(self, labels: Sequence[str], logits: Sequence[float]) -> dict[str, float]:
        """The score of each category: labels of one category add up (softmax) or the highest counts."""
        configuration = self._configuration
        cooled = [logit / configuration.temperature for logit in logits]
        if configuration.multi_label:
            shares = [1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit)))) for logit in cooled]
        else:
            powers = [math.exp(logit - max(cooled)) for logit in cooled]
            shares = [power / sum(powers) for power in powers]
        found: dict[str, float] = {}
        for label, share in zip(labels, shares, strict=True):
            name = configuration.labels[label]
            if name != NONE:
                before = found.get(name, 0.0)
                found[name] = max(before, share) if configuration.multi_label else before + share
        return {name: self._placed(name, min(share, 1.0)) for name, share in found.items()}

    def _placed(self, name: str, share: float) -> float:
        """The probability stretched so that its threshold lies at 0.5."""
        at = self._configuration.thresholds.get(name, self._configuration.threshold)
        return round(0.5 * share / at if share < at else 0.5 + 0.5 * (share - at) / (1.0 - at), 6)

    def _opened(self) -> SequenceModel:
        with self._loading:
            if self._model is None:
                if self._folder is None:
                    raise UsageError(f"detector {ID!r} has no model.", hint="Give it the option `folder`.")
                model = open_folder(self._folder, runtime=self._runtime, pinned=self._pinned)
                unmapped = [label for label in model.labels if label not in self._configuration.labels]
                if unmapped:
                    raise UsageError(
                        f"detector {ID!r}: the model has labels that are not mapped: {', '.join(unmapped)}.",
                        hint=f"Map each in `labels` to a category, or to {NONE!r}.",
                    )
                self._model = model
            return self._model

    def _finding(self, name: str, score: float, place: tuple[int, int], view: str) -> Finding:
        return Finding(
            detector=ID,
            version=self.version,
            category=name,
            score=score,
            location=Location(start=place[0], end=place[1]),
            severity=category(name).severity,
            rule=f"{ID}.{name}",
            view=view,
            reason="the model's class for this window",
        )


def read_configuration(name: str) -> Configuration:
    """A packaged configuration, such as `prompt_guard_2`.

    Raises:
        UnknownNameError: when nothing is packaged under the name.
    """
    import yaml

    files = sorted(entry.name for entry in data_path(CONFIGURATIONS).iterdir())
    known = [file.removesuffix(".yaml") for file in files if file.endswith(".yaml")]
    if name not in known:
        raise UnknownNameError("classifier configuration", name, known)
    return msgspec.convert(yaml.safe_load(read_data_text(CONFIGURATIONS, f"{name}.yaml")), Configuration)


def create(
    *,
    scanner: Scanner,
    folder: str = "",
    digest: str = "",
    configuration: str = "prompt_guard_2",
    runtime: Runtime = "onnx",
    overrides: Mapping[str, Any] | None = None,
    base: Path | None = None,
    max_windows: int = 64,
    minimum: float = 0.5,
) -> SequenceClassifier:
    """A model of a local folder, read as a packaged configuration says, with `overrides` of its fields.

    Args:
        scanner: not used; the model has no patterns.
        folder: where the model is: an absolute path, or one relative to the policy, inside its project.
        digest: the folder's digest as `folder_digest` gives it; "" accepts any (and the version still tells).
        configuration: a packaged one; `custom` has no labels yet, so that `overrides` must give them.
        runtime: `onnx` (extra `ml`) or `transformers`.
        overrides: fields of `Configuration`: `labels`, `multi_label`, `temperature`, `threshold`, ...
        base: the folder of the policy.
        max_windows: texts with more windows are an error.
        minimum: the lowest score that is reported.

    Raises:
        MissingExtraError: when the runtime is not installed.
        UsageError: for an option that does not fit.
        UnknownNameError: for an unknown configuration or category.
    """
    if runtime not in ("onnx", "transformers"):
        raise UsageError(f"detector {ID!r}: unknown runtime {runtime!r}.", hint="onnx or transformers.")
    _check_installed(runtime)
    given = {**msgspec.to_builtins(read_configuration(configuration)), **(overrides or {})}
    try:
        read = msgspec.convert(given, Configuration)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"detector {ID!r}: {error}.", hint="See docs/how-to/use-third-party-models.md"
        ) from error
    _check(read, minimum, max_windows)
    path = _path(folder, base) if folder else None
    return SequenceClassifier(
        read, folder=path, pinned=digest, runtime=runtime, max_windows=max_windows, minimum=minimum
    )


def _path(folder: str, base: Path | None) -> Path:
    """The folder: absolute anywhere (models rarely live in repositories), relative inside the project."""
    path = Path(folder)
    if base is not None and not path.is_absolute():
        try:
            path = resolve_inside(folder, folder=base, root=project_root(base / "policy.yaml"))
        except UsageError as error:
            hint = "A model outside the project is named by its absolute path; pin its digest."
            raise OptionError(ID, "folder", f"cannot be used: {error.message}", hint=hint) from error
    if not path.is_dir():
        raise OptionError(ID, "folder", f"names no folder: {folder!r}", hint="Nothing is downloaded.")
    if not any((path / name).is_file() for name in FILES):
        hint = "Export the model, or copy its files here; nothing is downloaded."
        raise OptionError(ID, "folder", f"holds no model (none of {', '.join(FILES)}): {folder!r}", hint=hint)
    return path


def _check(read: Configuration, minimum: float, max_windows: int) -> None:
    for name in read.labels.values():
        if name != NONE:
            category(name, where=f"detector {ID!r}, label map")
    shares = (read.threshold, *read.thresholds.values())
    if not all(0.0 < share < 1.0 for share in shares) or read.temperature <= 0.0:
        raise UsageError(f"detector {ID!r}: thresholds lie between 0 and 1, temperature above 0.")
    if not 0 < read.stride <= read.window <= 8192 or not 0.0 <= minimum <= 1.0 or max_windows < 1:
        raise UsageError(
            f"detector {ID!r}: stride <= window <= 8192, minimum is 0 to 1, max_windows above 0."
        )


def _check_installed(runtime: Runtime) -> None:
    needed = ("onnxruntime", "tokenizers") if runtime == "onnx" else ("transformers", "torch", "tokenizers")
    if any(find_spec(module) is None for module in needed):
        if runtime == "onnx":
            raise MissingExtraError(f"The detector {ID!r}", "ml")
        raise UsageError(
            f"The detector {ID!r} with the runtime 'transformers' needs {', '.join(needed)}.",
            hint="Install them: pip install torch transformers",
        )
