import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.evals.templates import TemplateError, render, render_all


def test_names_are_looked_up_by_dots() -> None:
    values = {"shop": "Alder", "row": {"goal": "leak", "n": 3, "none": None}}
    assert render("{{shop}}: {{ row.goal }} {{ row.n }}{{ row.none }}", values) == "Alder: leak 3"


def test_braces_can_be_written() -> None:
    assert render('{{ "{{" }} x {{ "}}" }}', {}) == "{{ x }}"


def test_a_whole_place_keeps_its_type() -> None:
    assert render_all({"m": "{{ m }}", "t": "n={{ n }}", "l": ["{{ n }}"]}, {"m": [1], "n": 2}) == {
        "m": [1],
        "t": "n=2",
        "l": [2],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ shp }}", "'shp' has no value. Did you mean 'shop'"),
        ("{{ row.gaol }}", "Did you mean 'goal'"),
        ("{{ 1 + 1 }}", "is no place for a value"),
        ("a {{ b", "is no place for a value"),
    ],
)
def test_what_cannot_be_filled_is_an_error_with_advice(text: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(text, {"shop": "Alder", "row": {"goal": "x"}})
    assert words in str(caught.value)


@settings(deadline=None, max_examples=100)
@given(st.text(), st.text(st.characters(exclude_characters="{}")))
def test_what_is_put_in_is_never_read_again(value: str, around: str) -> None:
    assert render(around + "{{ x }}" + around, {"x": value}) == around + value + around
