"""From fitted weights to the packaged file: int8, digest, manifest."""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec
import numpy as np

from pipeline.fit import Fitted
from pipeline.rows import SourceFile
from stanchion.core.codec import digest, digest_bytes
from stanchion.detectors.classifier import LinearManifest, LinearModel, open_linear
from stanchion.detectors.hashing import FEATURE_VERSION

NAME = "injection-linear"
VERSION = "5"
CLIPPED = 99.99  # percentile of the absolute weights that becomes 127


def quantised(weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights as int8 and the value of one step."""
    used = np.abs(weights[weights != 0])
    scale = float(np.percentile(used, CLIPPED)) / 127 if used.size else 1.0
    scale = float(f"{scale:.6g}")
    return np.clip(np.rint(weights / scale), -127, 127).astype(np.int8), scale


def archive(table: np.ndarray, kinds: np.ndarray) -> bytes:
    """The bytes of the weights file; equal arrays give equal bytes (no times inside)."""
    file = io.BytesIO()
    np.savez_compressed(file, table=table, kinds=kinds)
    return file.getvalue()


def packaged(
    fitted: Fitted, kinds: Fitted, files: Sequence[SourceFile], *, slope: float, thresholds: dict[str, float]
) -> tuple[bytes, LinearManifest, LinearModel]:
    """The weights file, its manifest, and the model as the package will load it."""
    table, scale = quantised(fitted.weights)
    data = archive(table, quantised(kinds.weights)[0])
    manifest = LinearManifest(
        name=NAME,
        version=VERSION,
        feature_version=FEATURE_VERSION,
        file=f"{NAME}.npz",
        digest=digest_bytes(data),
        data_digest=digest(sorted(f"{file.name} {file.digest}" for file in files)),
        scale=scale,
        bias=round(fitted.bias, 6),
        slope=slope,
        thresholds=thresholds,
    )
    return data, manifest, open_linear(manifest, data)


def manifest_bytes(manifest: LinearManifest) -> bytes:
    """The manifest as it is stored: indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
