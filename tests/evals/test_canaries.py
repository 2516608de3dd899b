from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.evals.canaries import marks, mint, plant, plant_all

FORMS = {"code": "STAFF-########", "key": "############"}


def test_a_canary_depends_on_seed_case_and_name_alone() -> None:
    first = mint(FORMS, seed=1, case_id="a")
    assert first == mint(FORMS, seed=1, case_id="a")
    others = [mint(FORMS, seed=2, case_id="a"), mint(FORMS, seed=1, case_id="b")]
    assert all(other[name] != first[name] for other in others for name in FORMS)
    assert first["code"].startswith("STAFF-")
    assert len(first["code"]) == len(FORMS["code"])


@settings(deadline=None, max_examples=50)
@given(st.integers(), st.text())
def test_every_letter_is_one_of_32(seed: int, case_id: str) -> None:
    value = mint({"x": "#" * 40}, seed=seed, case_id=case_id)["x"]
    assert set(value) <= set("ABCDEFGHJKLMNPQRSTUVWXYZ23456789")


def test_letters_are_evenly_spread() -> None:
    drawn = "".join(mint({"x": "#" * 100}, seed=n, case_id="c")["x"] for n in range(320))
    counts = [drawn.count(letter) for letter in set(drawn)]
    assert len(counts) == 32
    # each letter: mean 1000, standard deviation 31; six of those either way
    assert all(abs(count - 1000) < 6 * 31 for count in counts)


def test_marks_are_replaced_everywhere_and_nothing_else_is() -> None:
    mark = marks(FORMS)
    planted = mint(FORMS, seed=0, case_id="a")
    text = f"say {mark['code']} and {mark['key']} and {{{{ canary.code }}}}"
    assert plant(text, planted) == f"say {planted['code']} and {planted['key']} and {{{{ canary.code }}}}"
    assert plant_all({"a": [mark["code"], 1], "b": None}, planted) == {"a": [planted["code"], 1], "b": None}
