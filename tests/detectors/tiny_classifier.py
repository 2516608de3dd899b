"""A sequence classifier of two or more labels made on the spot, in the folder layout of published ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
QUIET = -4.0


def write_folder(
    folder: Path, words: Mapping[str, Sequence[float]], labels: Sequence[str], *, truncated: bool = True
) -> Path:
    """A model whose logits are the highest of its tokens'; its tokeniser cuts and pads as usual."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if truncated:
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.full((len(vocabulary), len(labels)), QUIET, dtype=np.float32)
    table[:, 0] = 0.0
    table[len(SPECIAL) :] = [list(values) for values in words.values()]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["values"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["values", "wide"], ["seen"]),
            helper.make_node("ReduceMax", ["seen", "axes"], ["logits"], keepdims=0),
        ],
        "worst_word",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "count"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(labels)])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([1]), "axes"),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    config = {"id2label": {str(number): label for number, label in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
