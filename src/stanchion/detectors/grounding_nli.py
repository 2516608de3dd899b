"""An entailment model from a folder: does a premise carry a hypothesis? ONNX Runtime, nothing downloaded.

The folder holds what sequence classifiers are exported with: `model.onnx`, `tokenizer.json` and a
`config.json` whose `id2label` names one label that contains "entail".
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from stanchion.core.errors import MissingExtraError, UsageError

_LONGEST = 512  # tokens of premise and hypothesis together
_LARGEST_CONFIG = 1 << 20  # bytes
_FILES = ("model.onnx", "tokenizer.json", "config.json")


class Entailment(Protocol):
    """Whether one text follows from another."""

    @property
    def version(self) -> str:
        """Changes with the model."""
        ...

    def entails(self, premise: str, hypothesis: str) -> float:
        """The probability that the hypothesis follows, in [0, 1]."""
        ...


class OnnxEntailment:
    """A sequence classifier over pairs of texts; one call at a time on one core."""

    def __init__(self, session: Any, tokenizer: Any, *, label: int, version: str) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._label = label
        self._names = [each.name for each in session.get_inputs()]
        self._lock = threading.Lock()
        self.version = version
        self._cached = lru_cache(maxsize=4096)(self._probability)

    @classmethod
    def load(cls, folder: str | Path) -> OnnxEntailment:
        """The model of a folder.

        Raises:
            MissingExtraError: when onnxruntime or tokenizers is not installed.
            UsageError: when a file is missing or does not fit.
        """
        path = Path(folder)
        missing = [name for name in _FILES if not (path / name).is_file()]
        if missing:
            raise UsageError(
                f"{path}: an entailment model needs {', '.join(missing)}.",
                hint="Export a sequence classifier for pairs of texts to ONNX, with its tokenizer.",
            )
        label = _entailment_label(path / "config.json")
        if any(find_spec(module) is None for module in ("onnxruntime", "tokenizers")):
            raise MissingExtraError("an entailment model", "ml")
        import tokenizers

        from stanchion.detectors.encoder_model import _runtime as quiet_runtime

        onnxruntime = quiet_runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                str(path / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:
            raise UsageError(f"{path}: the model cannot be read: {str(error)[:200]}") from error
        tokenizer.enable_truncation(_LONGEST)
        return cls(session, tokenizer, label=label, version=_digest(path))

    def entails(self, premise: str, hypothesis: str) -> float:
        """The probability that the hypothesis follows; repeated pairs are answered from memory."""
        return self._cached(premise, hypothesis)

    def _probability(self, premise: str, hypothesis: str) -> float:
        import numpy as np

        with self._lock:
            encoded = self._tokenizer.encode(premise, hypothesis)
            columns = {
                "input_ids": encoded.ids,
                "attention_mask": encoded.attention_mask,
                "token_type_ids": encoded.type_ids,
            }
            feed = {name: np.array([columns.get(name, encoded.ids)], dtype=np.int64) for name in self._names}
            logits = [float(value) for value in self._session.run(None, feed)[0][0]]
        highest = max(logits)
        weights = [math.exp(value - highest) for value in logits]
        return weights[self._label] / sum(weights)


def _entailment_label(file: Path) -> int:
    try:
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is too large")
        labels = json.loads(file.read_text(encoding="utf-8"))["id2label"]
        found = [
            int(i) for i, name in labels.items() if "entail" in name.lower() and "not" not in name.lower()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: no labels can be read from it ({error}).") from error
    if len(found) != 1:
        raise UsageError(
            f"{file}: {len(found)} labels say entailment; one is needed.",
            hint="Name it in `id2label`: ENTAILMENT.",
        )
    return found[0]


def _digest(folder: Path) -> str:
    hashed = hashlib.sha256()
    for name in _FILES:
        with (folder / name).open("rb") as stream:
            while chunk := stream.read(1 << 20):
                hashed.update(chunk)
    return hashed.hexdigest()[:16]
