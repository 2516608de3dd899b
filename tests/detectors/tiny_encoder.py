"""An encoder made on the spot, with the interface of the packaged one: its logit is the worst word's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from stanchion.core.codec import digest_bytes
from stanchion.core.origin import Origin
from stanchion.detectors import classifier
from stanchion.detectors.encoder_model import EncoderManifest, OperatingPoint, WeightFile

QUIET = -4.0
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
THRESHOLDS = dict.fromkeys(map(str, Origin), 0.0) | {"system": 6.0, "retrieved": -1.0, "tool_result": -1.0}


def tokenizer(words: Sequence[str], *, longest: int | None = None) -> bytes:
    """Whole words; `longest` switches truncation and padding on, as published tokenisers have it."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    made = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if longest is not None:
        made.enable_truncation(longest)
        made.enable_padding(length=longest)
    return made.to_str().encode()


def network(logits: Mapping[str, tuple[float, float]]) -> bytes:
    """A network whose logits are the highest of its tokens'; words that are not named have `QUIET`."""
    table = np.full((len(SPECIAL) + len(logits), 2), QUIET, dtype=np.float32)
    table[len(SPECIAL) :] = list(logits.values())
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["values"]),
            helper.make_node("ReduceMax", ["values", "axes"], ["logits"], keepdims=0),
        ],
        "worst_word",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "count"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def package(folder: Path, name: str, tokenizer_bytes: bytes, network_bytes: bytes) -> EncoderManifest:
    """An importable weights package in `folder`, and the manifest that belongs to it."""
    place = folder / name / "injection_encoder"
    place.mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    (place / "tokenizer.json").write_bytes(tokenizer_bytes)
    (place / "model.onnx").write_bytes(network_bytes)
    linear = classifier.read_manifest("injection-linear").digest
    return EncoderManifest(
        name="injection-encoder",
        version="0",
        base="none",
        data_digest=digest_bytes(b""),
        model=WeightFile("model.onnx", digest_bytes(network_bytes), len(network_bytes)),
        tokenizer=WeightFile("tokenizer.json", digest_bytes(tokenizer_bytes), len(tokenizer_bytes)),
        alone=OperatingPoint(linear_weight=0.0, linear_digest="", slope=1.0, thresholds=THRESHOLDS),
        with_linear=OperatingPoint(linear_weight=0.5, linear_digest=linear, slope=1.0, thresholds=THRESHOLDS),
    )
