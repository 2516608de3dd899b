"""From the trained network to the two files of the package: ONNX with int8 weights, and the tokeniser."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from encoder.network import Network

OPSET = 18
INPUT, OUTPUT = "tokens", "logits"


def exported(network: Network) -> bytes:
    """The network as ONNX in float32: one text per run, any number of tokens up to its positions."""
    network = network.eval()
    file = io.BytesIO()
    example = torch.arange(5, 25)[None, :]
    torch.onnx.export(
        network, (example,), file, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET,
        dynamic_axes={INPUT: {1: "count"}}, dynamo=False,
    )  # fmt: skip
    return file.getvalue()


def quantised(model: bytes) -> bytes:
    """The same with int8 weights, one scale for each output of a layer; activations are quantised as it runs.

    Nothing of the machine that made it is left in the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, small = (Path(folder) / name for name in ("plain", "prepared", "small"))
        plain.write_bytes(model)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared, small, weight_type=QuantType.QInt8, per_channel=True, reduce_range=False,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        )  # fmt: skip
        made = onnx.load(small)
    made.producer_name, made.producer_version, made.doc_string = "stanchion", "", ""
    for node in made.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(made)
    return made.SerializeToString(deterministic=True)


def scored(model: bytes, windows: list[np.ndarray]) -> np.ndarray:
    """The logits of framed windows, one run each: (windows, 2)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.array([session.run(None, {INPUT: window[None, :]})[0][0] for window in windows])
