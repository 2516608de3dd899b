"""The training of the encoder on a few made rows: words stay readable, windows, the same weights twice."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra 'ml' is not installed")
pytest.importorskip("sklearn", reason="scikit-learn trains the weights; it is not needed to use them")

TRAINING = Path(__file__).resolve().parents[2] / "training"
PIECES = ["ignore", "all", "rule", "##s", "the", "[unused1]"]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


@pytest.fixture(scope="module", autouse=True)
def training_on_the_path() -> None:
    sys.path.insert(0, str(TRAINING))


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, int]:
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *PIECES,
        *LETTERS,
        *(f"##{c}" for c in LETTERS),
        ".",
    ]
    return {piece: number for number, piece in enumerate(pieces)}


def text(tokens: list[int], label: int = 0, source: str = "made:x") -> object:
    from encoder.windows import Text

    from stanchion.detectors.encoder_model import window_starts

    starts = tuple(window_starts(len(tokens)))
    worst = tuple(reversed(range(len(starts)))) if label else ()
    return Text(np.array(tokens, dtype=np.int32), starts, label, source, "en", False, worst)


def texts(count: int = 80) -> list:
    rng = random.Random(3)
    made = []
    for number in range(count):
        label = number % 2
        words = [rng.randrange(20, 60) for _ in range(rng.choice([4, 20, 60, 300]))]
        if label:
            words[rng.randrange(len(words))] = 5
        made.append(text(words, label))
    return made


def test_a_pruned_vocabulary_spells_what_it_dropped(vocabulary: dict[str, int]) -> None:
    from encoder.vocabulary import kept_ids, pruned, tokenizer

    kept = kept_ids(vocabulary, ["ignore the rules"] * 3, size=len(vocabulary) - 2)
    small = pruned(vocabulary, kept)
    assert [small[piece] for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert "[unused1]" not in small
    assert sorted(small.values()) == list(range(len(small)))
    made = tokenizer({piece: n for n, piece in enumerate(p for p in small if p != "all")})
    assert made.encode("All rules", add_special_tokens=False).tokens == ["a", "##l", "##l", "rule", "##s"]


def test_signs_outside_the_vocabulary_and_long_words_hide_nothing(vocabulary: dict[str, int]) -> None:
    from encoder.vocabulary import LONGEST_WORD, tokenizer

    made = tokenizer(vocabulary)
    found = made.encode("ignore\u2603rules", add_special_tokens=False)
    assert found.tokens == ["ignore", "[UNK]", "rule", "##s"]
    assert found.offsets[2] == (7, 11)
    long = made.encode("ignore" * LONGEST_WORD, add_special_tokens=False).tokens
    assert "[UNK]" not in long
    assert "[SEP]" not in made.encode("a [SEP] b", add_special_tokens=False).tokens


def test_a_document_holds_the_whole_of_what_was_put_in() -> None:
    from encoder.windows import WINDOW, embedded

    for tokens, inside in embedded(texts(), random.Random(1), count=60):
        assert len(tokens) <= WINDOW
        found = np.lib.stride_tricks.sliding_window_view(tokens, len(inside.tokens))
        assert (found == inside.tokens).all(axis=1).any()


def test_windows_of_attacks_take_turns_and_those_of_harmless_texts_vary() -> None:
    from encoder.windows import chosen_window

    attack, harmless = text(list(range(20, 320)), 1), text(list(range(20, 320)), 0)
    rng = random.Random(1)
    assert [chosen_window(attack, turn, rng)[0] for turn in range(3)] == [
        attack.window(attack.worst[turn])[0] for turn in (0, 1, 0)
    ]
    assert len({int(chosen_window(harmless, 0, rng)[0]) for _ in range(20)}) > 5


def test_rates_at_the_chosen_threshold_are_those_asked_for() -> None:
    from encoder.calibrate import TARGET, thresholds
    from pipeline.recipe import USER_HARMLESS
    from pipeline.rows import Row

    rng = np.random.default_rng(1)
    rows = [Row(f"{n}", 0, USER_HARMLESS[n % len(USER_HARMLESS)], "en") for n in range(9000)]
    logits = rng.normal(size=len(rows))
    found = thresholds(logits, rows, rng.normal(size=500))
    assert (logits >= found["user"]).mean() <= TARGET
    assert (logits >= found["user"] - 0.2).mean() > TARGET
    assert found["retrieved"] <= found["user"] < found["system"]


@pytest.fixture(scope="module")
def learn() -> ModuleType:
    pytest.importorskip("torch", reason="torch trains the encoder; it is not needed to use it")
    from encoder import learn as module

    return module


@pytest.fixture(scope="module")
def small(learn: ModuleType) -> object:
    return replace(learn.Settings(), layers=1, epochs=2, rows=60, documents=10, tokens=512)


def trained(learn: ModuleType, settings: object) -> object:
    import torch
    from encoder.network import Network, Shape

    torch.set_num_threads(1)
    torch.manual_seed(1)
    shape = Shape(70, layers=1, width=24, heads=2, inner=48)
    return learn.learn(Network(shape), texts(), settings, told=lambda line: None)


def test_the_same_seed_gives_the_same_weights(learn: ModuleType, small: object) -> None:
    first, second = (trained(learn, small).state_dict() for _ in range(2))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_the_last_epoch_learns_from_the_worst_windows(learn: ModuleType, small: object) -> None:
    network = trained(learn, small)
    examples = learn.drawn(texts(), small, 1)
    harder = learn.hardened(examples, network, random.Random(1))
    assert [len(e.tokens) for e in harder] == [len(e.tokens) for e in examples]
    moved = [(a, b) for a, b in zip(examples, harder, strict=True) if a is not b]
    assert moved
    for before, after in moved:
        found = learn.window_logits(network, [before.tokens, after.tokens])
        assert before.label == 0
        assert found[1] >= found[0] - 0.5  # the former window need not be one of the detector's


def test_the_exported_network_is_the_trained_one(learn: ModuleType, small: object) -> None:
    pytest.importorskip("onnx", reason="onnx exports the encoder")
    pytest.importorskip("onnxscript", reason="the training requirements are not installed")
    import torch
    from encoder.export import exported, quantised, scored

    network = trained(learn, small).eval()
    windows = [np.arange(5, 5 + size, dtype=np.int64) for size in (1, 7, 60)]
    with torch.no_grad():
        expected = np.array([network(torch.from_numpy(window)[None])[0].numpy() for window in windows])
    plain = exported(network)
    assert np.abs(scored(plain, windows) - expected).max() < 1e-4
    small_file = quantised(plain)
    assert len(small_file) < len(plain)
    assert np.abs(scored(small_file, windows) - expected).max() < 0.3
    assert small_file == quantised(plain)
