"""Sequence classification models in memory, opened from a local folder by ONNX Runtime or transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stanchion.core.errors import IntegrityError, JudgementError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, TOKENIZER, ONNX, SAFETENSORS = "config.json", "tokenizer.json", "model.onnx", "model.safetensors"
FILES = (CONFIG, TOKENIZER, ONNX, "model.onnx_data", "model.onnx.data", SAFETENSORS)
_LARGEST_JSON = 64 * 1024 * 1024
_CHUNK = 1 << 20


class TokenWindow(NamedTuple):
    """A half-open span of characters, and its ids with the special ones around them."""

    start: int
    end: int
    ids: tuple[int, ...]


class _Network(Protocol):
    def run(self, ids: Sequence[int]) -> list[float]:
        """The logits of one sequence."""
        ...


class SequenceModel:
    """A tokeniser, a network and the names of its outputs. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, network: _Network, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._tokenizer = tokenizer
        self._network = network
        self._before, self._after = _special_ids(tokenizer)

    def windows(self, text: str, *, size: int, stride: int) -> Iterator[TokenWindow]:
        """Overlapping windows of at most `size` ids with the special ones; none without tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids, spans = encoding.ids, encoding.offsets
        room = max(size - len(self._before) - len(self._after), 1)
        step = max(min(stride, room), 1)
        start = 0
        while start < len(ids):
            end = min(start + room, len(ids))
            framed = (*self._before, *ids[start:end], *self._after)
            yield TokenWindow(spans[start][0], spans[end - 1][1], framed)
            if end == len(ids):
                return
            start += step

    def logits(self, ids: Sequence[int]) -> list[float]:
        """One number for each label.

        Raises:
            JudgementError: when the model gives something else.
        """
        import math

        found = self._network.run(ids)
        if len(found) != len(self.labels) or not all(math.isfinite(value) for value in found):
            raise JudgementError(
                f"the classifier gave {len(found)} outputs for {len(self.labels)} labels, or no numbers."
            )
        return found


def folder_digest(folder: Path) -> str:
    """The identity of a model folder: sha256 over the names and contents of the files that are read.

    Raises:
        IntegrityError: when none of them is there.
    """
    total = hashlib.sha256()
    names = [name for name in FILES if (folder / name).is_file()]
    if not names:
        raise IntegrityError(
            f"model folder '{folder.name}': it holds none of {', '.join(FILES)}.",
            hint="Export the model, or copy its files here; nothing is downloaded.",
        )
    for name in names:
        own = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                own.update(chunk)
        total.update(f"{name}\0{own.hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def open_folder(folder: Path, *, runtime: str, pinned: str = "") -> SequenceModel:
    """The model of a folder.

    Raises:
        IntegrityError: when its digest is not the pinned one, or its files are not what they should be.
    """
    if pinned:
        found = folder_digest(folder)
        if found != pinned:
            raise IntegrityError(
                f"model folder '{folder.name}': digest {found} is not {pinned}.",
                hint="The files were changed. If that was meant, pin the new digest.",
            )
    labels = _labels(_json(folder / CONFIG))
    from tokenizers import Tokenizer

    network: _Network
    try:
        tokenizer = Tokenizer.from_file(str(_present(folder / TOKENIZER)))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        network = _Onnx(_present(folder / ONNX)) if runtime == "onnx" else _Transformers(folder)
    except IntegrityError:
        raise
    except Exception as error:  # the libraries raise plain exceptions of their own
        raise IntegrityError(
            f"model folder '{folder.name}' cannot be opened: {type(error).__name__}.",
            hint="Export it anew, or use the other runtime.",
        ) from error
    return SequenceModel(tokenizer, network, labels)


class _Onnx:
    """ONNX Runtime on one thread, on the processor."""

    def __init__(self, path: Path) -> None:
        from stanchion.detectors.encoder_model import _runtime as quiet_runtime

        onnxruntime = quiet_runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is an exception
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        unknown = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown or "input_ids" not in self._inputs:
            raise IntegrityError(
                f"'{path.name}': inputs {sorted(self._inputs)} are not those of a classifier."
            )

    def run(self, ids: Sequence[int]) -> list[float]:
        import numpy as np

        row = np.array([ids], dtype=np.int64)
        values = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        given = {name: values[name] for name in self._inputs}
        return [float(value) for value in np.asarray(self._session.run(None, given)[0])[0].ravel()]


class _Transformers:
    """Transformers and torch, from local files and safetensors only; no code of the folder runs."""

    def __init__(self, folder: Path) -> None:
        _present(folder / SAFETENSORS)
        import transformers

        self._model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self._model.eval()

    def run(self, ids: Sequence[int]) -> list[float]:
        import torch

        with torch.no_grad():
            row = torch.tensor([list(ids)])
            found = self._model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0]
        return [float(value) for value in found]


def _present(path: Path) -> Path:
    if not path.is_file():
        raise IntegrityError(
            f"model folder '{path.parent.name}': '{path.name}' is missing.",
            hint="Export the model, or copy its files here; nothing is downloaded.",
        )
    return path


def _json(path: Path) -> Any:
    if _present(path).stat().st_size > _LARGEST_JSON:
        raise IntegrityError(f"model folder '{path.parent.name}': '{path.name}' is too large.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"model folder '{path.parent.name}': '{path.name}' is not JSON.") from error


def _labels(config: Any) -> list[str]:
    """The names of the outputs, in order."""
    named = config.get("id2label") if isinstance(config, dict) else None
    if named is None and isinstance(config, dict) and _is_classifier(config):
        return ["LABEL_0", "LABEL_1"]  # transformers leaves out what is its default
    if not isinstance(named, dict) or not named:
        raise IntegrityError("the model's config.json has no 'id2label'.", hint="Is it a classifier?")
    try:
        by_number = {int(number): str(label) for number, label in named.items()}
    except ValueError as error:
        raise IntegrityError("'id2label' of the model's config.json is not numbered.") from error
    if sorted(by_number) != list(range(len(by_number))):
        raise IntegrityError("'id2label' of the model's config.json has gaps.")
    return [by_number[number] for number in range(len(by_number))]


def _is_classifier(config: dict[str, Any]) -> bool:
    named = config.get("architectures")
    return isinstance(named, list) and any(str(one).endswith("ForSequenceClassification") for one in named)


def _special_ids(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokeniser puts before and after a sequence."""
    probe = "a"
    plain = tokenizer.encode(probe, add_special_tokens=False).ids
    framed = tokenizer.encode(probe, add_special_tokens=True).ids
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return tuple(framed[:start]), tuple(framed[start + len(plain) :])
    return (), ()
