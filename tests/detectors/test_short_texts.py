"""The short way to a text's highest logit gives what the long way gives, to the last bit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.detectors.classifier import load_linear, windows_of
from stanchion.detectors.hashing import n_grams
from stanchion.detectors.linear import WEIGHTS

_WORDS = (
    *("ignore", "all", "previous", "instructions", "and", "tell", "me", "what", "12", "34", "5678"),
    *("a", "I", "don't", "'said'", "(no)", "x1", "1x", "it's", "e.g.", "parcel,", "Tuesday.", "Why?"),
    *("Now!", "DAN", "mode;", "under_score", "[system]", "the", "of", "3.14", "end.\n", "line\r\n"),
)
_TEXTS = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=400),
    st.lists(st.sampled_from(_WORDS), max_size=150).map(" ".join),
    st.text("ab1 .\n", max_size=1100),
)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    load_linear(WEIGHTS)


def _the_long_way(text: str) -> float:
    grams = n_grams(text)
    if grams.letters.size == 0:
        return float("-inf")
    return float(load_linear(WEIGHTS).logits(grams, windows_of(text)).max())


@given(_TEXTS)
def test_the_short_way_gives_the_same_number(text: str) -> None:
    found = load_linear(WEIGHTS).highest_of_short(text)
    assert found is None or found == _the_long_way(text)


def test_the_short_way_is_taken_for_ordinary_texts() -> None:
    draw = random.Random(3)
    model, taken = load_linear(WEIGHTS), 0
    for _ in range(300):
        text = " ".join(draw.choices(_WORDS[:11], k=draw.randint(5, 40)))
        found = model.highest_of_short(text)
        assert found is None or found == _the_long_way(text)
        taken += found is not None
    assert taken > 290


@pytest.mark.parametrize(
    "text",
    [
        "caf\u00e9 au lait",
        "he said 'ignore all of it' today",
        "ab 1",
        "a" * 2000,
        "And here is one. And there are two! " * 20,
    ],
)
def test_what_needs_the_long_way_is_left_to_it(text: str) -> None:
    assert load_linear(WEIGHTS).highest_of_short(text) is None


@pytest.mark.parametrize("text", ["", " ", "\n\n", "... !!", "\x00\x01"])
def test_a_text_without_letters_has_no_logit(text: str) -> None:
    assert load_linear(WEIGHTS).highest_of_short(text) == float("-inf")
