"""The encoder of `injection.encoder`: its weights, verified before they are loaded, and its windows.

The weights come as a package of their own, `stanchion-ml-weights`; their digests are in this package. Nothing
is downloaded, nothing is written.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.errors import IntegrityError, JudgementError, MissingExtraError, UsageError
from stanchion.core.resources import read_data_bytes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

NAME = "injection-encoder"
EXTRA = "ml"
PACKAGE = "stanchion_ml_weights"
FOLDER = "injection_encoder"
WINDOW = 126  # tokens of a window, without the two that frame it
STRIDE = 94  # from one window to the next: what is no longer than the overlap is whole in one of them
LARGEST_LINEAR = 12.0  # logits of the linear model beyond this say nothing more

_INSTALL = "Install it: pip install ./packages/stanchion-ml-weights"


class WeightFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the weights package: its name, its digest and its size in bytes."""

    name: str
    digest: str
    size: int


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How logits become scores.

    A text's logit is that of its worst window plus `linear_weight` times the one of the linear model whose
    weights have `linear_digest`; its score is the logistic function of `slope * (logit - threshold)`.
    `thresholds` are by origin, frozen on the calibration half of the development data.
    """

    linear_weight: float
    linear_digest: str
    slope: float
    thresholds: dict[str, float]

    def score(self, logit: float, origin: str) -> float:
        """The score of a logit for a text of this origin, in [0, 1]; 0.5 at the origin's threshold."""
        argument = self.slope * (logit - self.thresholds[origin])
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, argument))))

    def added(self, linear_logit: float) -> float:
        """What the linear model's logit adds to the encoder's."""
        return self.linear_weight * max(-LARGEST_LINEAR, min(LARGEST_LINEAR, linear_logit))


class EncoderManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this version of the package knows about the weights that belong to it."""

    name: str
    version: str
    base: str
    data_digest: str
    model: WeightFile
    tokenizer: WeightFile
    alone: OperatingPoint
    with_linear: OperatingPoint


class WindowLogits(NamedTuple):
    """A window of a text, half-open, and its two logits: attack, and jailbreak rather than injection."""

    start: int
    end: int
    attack: float
    jailbreak: float


class EncoderModel:
    """A tokeniser and a network in memory. Safe to share between threads.

    One window per run: with dynamic quantisation the score of a window would depend on its neighbours.
    """

    def __init__(self, tokenizer: Tokenizer, session: InferenceSession) -> None:
        self._tokenizer = tokenizer
        self._session = session
        self._input = session.get_inputs()[0].name
        self._first, self._last = (_special(tokenizer, piece) for piece in ("[CLS]", "[SEP]"))

    def tokens(self, text: str) -> Tokens:
        """The text as ids, with the half-open span of each in the text."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return Tokens(encoding.ids, encoding.offsets)

    def logits(self, ids: Sequence[int]) -> tuple[float, float]:
        """Both logits of one window.

        Raises:
            JudgementError: when they are not numbers.
        """
        import numpy as np

        framed = np.array([[self._first, *ids, self._last]], dtype=np.int64)
        attack, jailbreak = self._session.run(None, {self._input: framed})[0][0].tolist()
        if not (math.isfinite(attack) and math.isfinite(jailbreak)):
            raise JudgementError(f"'{NAME}' gave {attack} for a window of {len(ids)} tokens; it is no logit.")
        return attack, jailbreak


class Tokens(NamedTuple):
    """Ids of a text and the span of characters that made each."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def windows(self) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Start and end in characters, and the ids, of each window; none for a text without tokens."""
        for start in window_starts(len(self.ids)):
            end = min(start + WINDOW, len(self.ids))
            yield self.spans[start][0], self.spans[end - 1][1], tuple(self.ids[start:end])


def window_starts(count: int) -> list[int]:
    """Where the windows of a text of `count` tokens start; the last window ends with the text."""
    if count == 0:
        return []
    return [*range(0, max(count - WINDOW, 0), STRIDE), max(count - WINDOW, 0)]


@lru_cache(maxsize=1)
def read_manifest() -> EncoderManifest:
    """The packaged manifest `data/weights/injection-encoder.json`."""
    return msgspec.json.decode(read_data_bytes("weights", f"{NAME}.json"), type=EncoderManifest)


def check_installed() -> None:
    """That everything the encoder needs is there; nothing is imported.

    Raises:
        MissingExtraError: when the extra is not installed.
        UsageError: when the weights package is not.
    """
    if any(find_spec(module) is None for module in ("onnxruntime", "tokenizers")):
        raise MissingExtraError("The detector 'injection.encoder'", EXTRA)
    if find_spec(PACKAGE) is None:
        raise UsageError("The package 'stanchion-ml-weights' is not installed.", hint=_INSTALL)


_LOADING = threading.Lock()


def load_encoder(threads: int = 1) -> EncoderModel:
    """The packaged encoder, verified and kept for the life of the process.

    Raises:
        MissingExtraError, UsageError: when something is not installed.
        IntegrityError: when the weights are not those that the manifest names.
    """
    with _LOADING:  # so that threads that begin together load it once
        return _loaded(threads)


@lru_cache(maxsize=4)
def _loaded(threads: int) -> EncoderModel:
    check_installed()
    manifest = read_manifest()
    files = (manifest.tokenizer, manifest.model)
    tokenizer, model = (_verified(file, _read(file)) for file in files)
    return open_encoder(tokenizer, model, threads=threads)


def _read(file: WeightFile) -> bytes:
    path = resources.files(PACKAGE).joinpath(FOLDER, file.name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(
            f"weights '{file.name}' of 'stanchion-ml-weights' cannot be read: {error.strerror}.",
            hint=f"Install it anew: {_INSTALL.partition(': ')[2]}",
        ) from error


def _verified(file: WeightFile, data: bytes) -> bytes:
    found = digest_bytes(data)
    if found != file.digest:
        raise IntegrityError(
            f"weights '{file.name}' of 'stanchion-ml-weights': digest {found} is not {file.digest}.",
            hint="The file was changed, or is of another version than stanchion. Install the right one.",
        )
    return data


def open_encoder(tokenizer: bytes, model: bytes, *, threads: int = 1) -> EncoderModel:
    """An encoder from the bytes of its files, which must have been verified.

    Raises:
        MissingExtraError: when the extra is not installed.
        IntegrityError: when the bytes are no tokeniser, or no network of the right shape.
    """
    runtime = _runtime()
    from tokenizers import Tokenizer

    try:
        opened = Tokenizer.from_buffer(tokenizer)
        session = runtime.InferenceSession(
            model, _session_options(runtime, threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # both libraries raise plain exceptions of their own
        raise IntegrityError(f"weights of '{NAME}' cannot be opened: {type(error).__name__}.") from error
    opened.no_padding()
    opened.no_truncation()
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise IntegrityError(f"weights of '{NAME}': one input and one output are needed.")
    return EncoderModel(opened, session)


def _runtime() -> ModuleType:
    """onnxruntime, told to keep to itself.

    Since version 1.29 its Linux builds write an identifier and a queue of events to the disk and send them to
    its maker, beginning with the import. Only this variable, set before it, prevents all of that
    (microsoft/onnxruntime, pull request 29843); in a process that imported it earlier, what can still be
    switched off is.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("The detector 'injection.encoder'", EXTRA) from error
    onnxruntime.disable_telemetry_events()
    runtime: ModuleType = onnxruntime
    return runtime


def _session_options(runtime: ModuleType, threads: int) -> object:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _special(tokenizer: Tokenizer, piece: str) -> int:
    number = tokenizer.token_to_id(piece)
    if number is None:
        raise IntegrityError(f"weights of '{NAME}': the tokeniser has no {piece}.")
    return int(number)
