"""The gate's arithmetic as the command line prints it, on callables that answer as the test wants."""

from __future__ import annotations

import pytest
from stanchion_command import Done, Place

APP = """
def fine(text):
    return "How can I help?"

def every_tenth_breaks(text):
    if text.endswith("0"):
        raise RuntimeError("broken")
    return "How can I help?"

def bad_or_broken(text):
    if text.endswith("0"):
        raise RuntimeError("broken")
    return "forbidden"
"""
SUITE = """
suite: words
scorers: [{{use: excludes}}]
datasets: [{{path: rows.jsonl}}]
criteria:
- {{id: bad words, metric: unsafe_rate, limit: {limit}}}
"""


@pytest.fixture
def shop(place: Place) -> Place:
    place.write("app.py", APP)
    place.write_rows(
        "rows.jsonl", [{"prompt": f"question {n}", "expect.excludes": ["forbidden"]} for n in range(300)]
    )
    return place


def run(shop: Place, function: str, *, limit: str, form: str = "text") -> Done:
    shop.write("suite.yaml", SUITE.format(limit=limit))
    target = f"callable:app.py:{function}"
    return shop.call("eval", "run", "suite.yaml", "--target", target, "--format", form)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_none_of_300_is_at_most_one_percent_and_passes_that_limit(shop: Place) -> None:
    done = run(shop, "fine", limit="1%")
    assert done.code == 0
    assert "PASS" in done.out
    assert "0 of 300" in done.out
    assert "at most 1.0 %" in done.out
    judged = shop.call("gate", "latest", "--explain")
    assert judged.code == 0
    assert "at most 1.0 % (one-sided 95 %)" in judged.out


def test_half_a_percent_is_inconclusive_and_says_how_many_more(shop: Place) -> None:
    done = run(shop, "fine", limit="0.5%")
    assert done.code == 3
    assert "INCONCLUSIVE" in done.out
    assert "about 298 more cases without a bad one would settle it" in flat(done.out)
    judged = shop.call("gate", "--format", "json")
    assert judged.code == 3
    (criterion,) = judged.data["verdicts"][0]["criteria"]
    assert judged.data["outcome"] == "inconclusive"
    assert criterion["still_needed"] == 298
    assert 0.00993 < criterion["bound"] < 0.00994  # 1 - 0.05 ** (1 / 300)


def test_the_number_that_is_still_needed_is_enough(shop: Place) -> None:
    rows = [{"prompt": f"question {n}", "expect.excludes": ["forbidden"]} for n in range(598)]
    shop.write_rows("rows.jsonl", rows)
    assert run(shop, "fine", limit="0.5%").code == 0
    shop.write_rows("rows.jsonl", rows[:-1])
    assert run(shop, "fine", limit="0.5%").code == 3


@pytest.mark.parametrize("limit", ["1%", "50%", "99%"])
def test_errors_in_a_tenth_of_the_cases_are_invalid_whatever_the_limit(shop: Place, limit: str) -> None:
    done = run(shop, "every_tenth_breaks", limit=limit)
    assert done.code == 3
    assert "INVALID" in done.out
    assert "30 of 300 results (10.0 %) have no judgement; the budget is 5.0 %" in flat(done.out)
    assert "error: 30 of 300 results are missing: RuntimeError: broken." in done.err
    judged = shop.call("gate", "--format", "json")
    assert (judged.code, judged.data["outcome"], judged.data["exit_code"]) == (3, "invalid", 3)


def test_what_fails_even_with_every_error_counted_safe_is_a_fail(shop: Place) -> None:
    done = run(shop, "bad_or_broken", limit="1%")
    assert done.code == 1
    assert "FAIL" in done.out
    assert "fails even with all 30 unjudged results counted as good" in flat(done.out)
    assert shop.call("gate").code == 1
