"""Hashing, windows and weights: exact against slow twins, equal everywhere, verified at load."""

from __future__ import annotations

import io
import random
import string
import time
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import IntegrityError, UnknownNameError
from stanchion.core.resources import read_data_bytes
from stanchion.detectors import classifier
from stanchion.detectors.classifier import (
    KIND_BITS,
    LONG_WINDOW,
    SHORT_WINDOW,
    WORD_FACTOR,
    Windows,
    load_linear,
    open_linear,
    read_manifest,
    window_sums,
    windows_of,
)
from stanchion.detectors.hashing import CHARACTER_ORDERS, TABLE_BITS, WORD_ORDERS, n_grams

NAME = "injection-linear"
TABLE = np.random.default_rng(3).integers(-127, 128, 1 << TABLE_BITS).astype(np.int8)


def letters_of(text: str) -> list[tuple[int, str]]:
    """The letters of an ASCII text, slowly: a run of digits is its first digit, read as 0."""
    found = []
    for offset, sign in enumerate(text):
        if sign.isdigit():
            if offset and text[offset - 1].isdigit():
                continue
            sign = "0"
        if sign.isalnum():
            found.append((offset, sign.lower()))
    return found


def words_of(text: str) -> list[str]:
    words: list[str] = []
    last = -2
    for offset, sign in letters_of(text):
        if offset == last + 1:
            words[-1] += sign
        else:
            words.append(sign)
        last = offset
    return words


ascii_text = st.text(st.sampled_from(string.ascii_letters + "  .,-'\n019"), max_size=60)


@given(ascii_text)
@settings(deadline=None, max_examples=150)
def test_equal_n_grams_have_equal_buckets_and_there_are_as_many_as_a_slow_count(text: str) -> None:
    grams = n_grams(text)
    letters = [sign for _, sign in letters_of(text)]
    words = words_of(text)
    expected = []
    for kind, order in [(letters, n) for n in CHARACTER_ORDERS] + [(words, n) for n in WORD_ORDERS]:
        expected += [(order, kind is words, *kind[i : i + order]) for i in range(len(kind) - order + 1)]
    assert grams.buckets.size == len(expected)
    assert grams.letters.tolist() == [offset for offset, _ in letters_of(text)]
    by_gram: dict[tuple[object, ...], set[int]] = {}
    for gram, bucket in zip(expected, grams.buckets.tolist(), strict=True):
        by_gram.setdefault(gram, set()).add(bucket)
    assert all(len(buckets) == 1 for buckets in by_gram.values())
    assert all(0 <= bucket < 1 << TABLE_BITS for buckets in by_gram.values() for bucket in buckets)


def test_buckets_are_these_on_every_platform() -> None:
    grams = n_grams("Ignore 12 rules")
    assert grams.letters.tolist() == [0, 1, 2, 3, 4, 5, 7, 10, 11, 12, 13, 14]
    assert grams.buckets[-5:].tolist() == [407484, 68022, 994381, 916705, 396612]
    assert int(grams.buckets.sum()) == 13551038


def test_spaces_marks_case_and_width_do_not_change_character_n_grams() -> None:
    def characters(text: str) -> list[int]:
        return n_grams(text).buckets[: n_grams(text).family_starts[2]].tolist()

    assert characters("i g n o r e all") == characters("IGNORE-ALL")
    assert characters("ÉCOLE à la plage") == characters("ecole a la plage")
    assert characters("ИГНОРИРУЙ правила") == characters("игнорируй ПРАВИЛА")


def test_a_character_of_a_script_without_spaces_is_a_word() -> None:
    grams = n_grams("忽略之前 abc")
    assert grams.word_starts.tolist() == [0, 1, 2, 3, 5]
    assert grams.word_ends.tolist() == [1, 2, 3, 4, 8]


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=150)
def test_any_text_has_n_grams_and_windows_inside_it(text: str) -> None:
    grams = n_grams(text)
    windows = windows_of(text)
    assert ((windows.starts >= 0) & (windows.starts <= windows.ends) & (windows.ends <= len(text))).all()
    sums, counts = window_sums(grams, windows, TABLE)
    assert counts.max() <= grams.buckets.size
    assert counts[0] == grams.buckets.size  # the first window of a short text is the whole
    assert np.abs(sums).max() <= 127 * WORD_FACTOR * max(int(counts.max()), 0)


@given(st.lists(st.text(st.sampled_from("abc xyz你好"), min_size=1, max_size=12), min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_the_sum_of_a_window_is_that_of_the_text_cut_out(parts: list[str]) -> None:
    text = ". ".join(parts)
    cuts = [0, *(i + 2 for i in range(len(text)) if text[i : i + 2] == ". "), len(text)]
    grams = n_grams(text)
    for start, end in pairwise(cuts):
        sums, counts = window_sums(grams, Windows(np.array([start]), np.array([end])), TABLE)
        own = n_grams(text[start:end])
        weights = TABLE.take(own.buckets).astype(np.int64)
        weights[own.family_starts[len(CHARACTER_ORDERS)] :] *= WORD_FACTOR
        assert (int(sums[0]), int(counts[0])) == (int(weights.sum()), own.buckets.size)


def test_windows_cover_a_long_text_overlap_and_hold_every_sentence() -> None:
    sentences = [f"This is sentence number {n} of a long report." for n in range(120)]
    text = " ".join(sentences)
    windows = windows_of(text)
    spans = set(zip(windows.starts.tolist(), windows.ends.tolist(), strict=True))
    for sentence in sentences:
        start = text.index(sentence)
        assert any(a <= start and start + len(sentence) <= b <= start + len(sentence) + 1 for a, b in spans)
    for width in (SHORT_WINDOW, LONG_WINDOW):
        steps = sorted(a for a, b in spans if b - a == width)
        assert steps[0] == 0
        assert max(b - a for a, b in pairwise(steps)) <= width // 2
    assert len(spans) <= 0.2 * len(text)


def test_a_full_stop_inside_an_address_ends_no_sentence() -> None:
    text = "Send the list to boss@mail.example.com today please. Then rest a little while."
    windows = windows_of(text)
    assert 37 not in windows.ends.tolist()
    assert text.index(" Then") in windows.ends.tolist()


def test_long_texts_must_beat_the_threshold_by_a_bounded_allowance() -> None:
    sizes = [0, 100, LONG_WINDOW, 2 * LONG_WINDOW, 4 * LONG_WINDOW, 1 << 20, 1 << 30]
    allowances = [classifier.allowance(size) for size in sizes]
    assert allowances[:3] == [0.0, 0.0, 0.0]
    assert allowances[3:5] == pytest.approx([classifier.DOUBLING, 2 * classifier.DOUBLING])
    assert allowances == sorted(allowances)
    assert allowances[-1] == classifier.LARGEST_ALLOWANCE


def test_scores_are_monotone_in_the_logit_and_half_at_the_threshold() -> None:
    model = load_linear(NAME)
    for origin, threshold in model.manifest.thresholds.items():
        scores = [model.score(logit, origin) for logit in np.linspace(-800, 800, 400)]
        assert scores == sorted(scores)
        assert 0.0 <= scores[0] < 1e-6
        assert 1 - 1e-6 < scores[-1] <= 1.0
        assert model.score(threshold, origin) == 0.5
        assert model.logit(0.9, origin) == pytest.approx(threshold + np.log(9) / model.manifest.slope)


def test_the_packaged_weights_have_the_size_and_digest_the_manifest_says() -> None:
    manifest = read_manifest(NAME)
    data = read_data_bytes("weights", manifest.file)
    assert len(data) <= 3_000_000
    assert open_linear(manifest, data).manifest == manifest


def test_changed_weights_are_refused() -> None:
    manifest = read_manifest(NAME)
    data = bytearray(read_data_bytes("weights", manifest.file))
    data[len(data) // 2] ^= 1
    with pytest.raises(IntegrityError, match=r"injection-linear\.npz.*is not sha256:") as caught:
        open_linear(manifest, bytes(data))
    assert "Reinstall" in str(caught.value)


def test_weights_for_other_features_are_refused() -> None:
    manifest = msgspec.structs.replace(read_manifest(NAME), feature_version=99)
    with pytest.raises(IntegrityError, match="features 99"):
        open_linear(manifest, read_data_bytes("weights", manifest.file))


@pytest.mark.parametrize(
    "arrays",
    [
        {"table": np.zeros(8, dtype=np.int8), "kinds": np.zeros(1 << KIND_BITS, dtype=np.int8)},
        {
            "table": np.zeros(1 << TABLE_BITS, dtype=np.float32),
            "kinds": np.zeros(1 << KIND_BITS, dtype=np.int8),
        },
    ],
)
def test_arrays_of_another_shape_are_refused_even_with_the_right_digest(
    arrays: dict[str, np.ndarray],
) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    manifest = msgspec.structs.replace(read_manifest(NAME), digest=classifier.digest_bytes(file.getvalue()))
    with pytest.raises(IntegrityError, match="is not what the features need"):
        open_linear(manifest, file.getvalue())


def test_a_pickle_in_the_weights_file_is_never_loaded() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, table=np.array([{"a": 1}], dtype=object), kinds=np.zeros(1, dtype=np.int8))
    manifest = msgspec.structs.replace(read_manifest(NAME), digest=classifier.digest_bytes(file.getvalue()))
    with pytest.raises((ValueError, IntegrityError)):
        open_linear(manifest, file.getvalue())


def test_unknown_weights_name_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match="injection-linear"):
        read_manifest("injection-liner")


def test_features_are_linear_in_the_length() -> None:
    rng = random.Random(1)
    text = "".join(rng.choice(string.ascii_letters + "    .,") for _ in range(1 << 19))

    def seconds(size: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            piece = text[:size]
            window_sums(n_grams(piece), windows_of(piece), TABLE)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(1 << 19) <= 40 * seconds(1 << 15) + 0.05  # 16 times the length
