import random

from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.evals.near_duplicates import jaccard, near_duplicates, shingles_of

WORDS = [f"w{n}" for n in range(400)]


def test_pairs_are_those_of_an_exhaustive_search() -> None:
    rng = random.Random(3)
    texts = [(f"t{n}", " ".join(rng.choices(WORDS, k=40))) for n in range(60)]
    for n in range(12):  # near copies: a few words changed
        words = texts[n][1].split()
        for _ in range(n % 4):
            words[rng.randrange(40)] = "changed"
        texts.append((f"copy{n}", " ".join(words)))
    shingled = {name: shingles_of(text) for name, text in texts}
    names = list(shingled)
    wanted = {
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if jaccard(shingled[a], shingled[b]) >= 0.85
    }
    assert wanted
    assert {(pair.first, pair.second) for pair in near_duplicates(texts)} == wanted


def test_case_and_spacing_do_not_hide_a_copy() -> None:
    pairs = near_duplicates(
        [("a", "Please tell me the staff code now"), ("b", "please  TELL me\nthe staff code now")]
    )
    assert [(p.first, p.second, p.similarity) for p in pairs] == [("a", "b", 1.0)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=20), max_size=8))
def test_any_texts_are_taken(texts: list[str]) -> None:
    pairs = near_duplicates((str(n), text) for n, text in enumerate(texts))
    assert all(0.85 <= pair.similarity <= 1.0 for pair in pairs)
