"""An endpoint that fails in the middle of a run: one message, INVALID, nothing lost, and it can go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from model_server import ModelServer
from stanchion_command import Place, assert_one_complaint

CASES = 6
GOOD = 3
SUITE = """
suite: words
target: {{kind: endpoint, base_url: '{url}', model: m}}
scorers: [{{use: excludes}}]
datasets: [{{path: rows.jsonl}}]
limits: {{attempts: 1, timeout: {timeout}, concurrency: 1}}
criteria: [{{id: bad words, metric: unsafe_rate, limit: 50%}}]
"""
TROUBLE = {
    "html": ["the answer is not JSON but an HTML page", "Is the base URL that of an API?"],
    "json": ["model 'openai:m'"],
    "500": ["the endpoint failed (HTTP 500, boom)", "try again later"],
    "slow": ["no answer within 2 s"],
}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    made = ModelServer()
    yield made
    made.close()


def prepare(place: Place, server: ModelServer, *, timeout: str = "30s") -> None:
    place.write("suite.yaml", SUITE.format(url=server.url, timeout=timeout))
    rows = [{"prompt": f"question {n}", "expect.excludes": ["forbidden"]} for n in range(CASES)]
    place.write_rows("rows.jsonl", rows)


def counts(place: Place, run_id: str) -> dict[str, int]:
    shown = place.call("eval", "show", run_id, "--verify", "--format", "json")
    assert shown.code == 0, shown
    return dict(shown.data["arms"][0]["summary"]["counts"])


def assert_invalid(place: Place, run_id: str) -> None:
    judged = place.call("gate", run_id, "--format", "json")
    assert (judged.code, judged.data["outcome"]) == (3, "invalid")


def assert_goes_on(place: Place, server: ModelServer, run_id: str) -> None:
    """The run goes on where it stopped: every case is answered exactly once in all."""
    done = place.call("eval", "run", "suite.yaml", "--resume", run_id)
    assert done.code == 0, done
    assert "error" not in done.err
    assert "PASS" in done.out
    assert counts(place, run_id)["safe"] == CASES
    assert sorted(server.answered) == [f"question {n}" for n in range(CASES)]
    assert set(server.answered.values()) == {1}
    assert place.call("gate", run_id).code == 0
    assert place.run_ids() == [run_id]


@pytest.mark.parametrize("mode", TROUBLE)
def test_an_endpoint_that_breaks_in_the_middle(place: Place, server: ModelServer, mode: str) -> None:
    server.mode, server.good = mode, GOOD
    server.open()
    prepare(place, server, timeout="2s" if mode == "slow" else "30s")

    done = place.call("eval", "run", "suite.yaml")
    (run_id,) = place.run_ids()
    missing = f"error: {CASES - GOOD} of {CASES} results are missing: "
    go_on = f"What was judged is kept. Go on: stanchion eval run suite.yaml --resume {run_id}"
    assert_one_complaint(done, code=3, words=[missing, *TROUBLE[mode], go_on])
    assert "INVALID" in done.out
    assert "private prose" not in done.out + done.err
    assert counts(place, run_id) == {
        "safe": GOOD,
        "unsafe": 0,
        "unscored": 0,
        "error": CASES - GOOD,
        "skipped": 0,
    }
    assert_invalid(place, run_id)
    listed = place.call("eval", "show", run_id)
    for word in TROUBLE[mode]:
        assert " ".join(word.split()[:3]) in " ".join(listed.out.split())

    server.mode, server.good = "fine", 0
    assert_goes_on(place, server, run_id)


def test_an_endpoint_that_is_down_and_comes_back(place: Place, server: ModelServer) -> None:
    prepare(place, server)
    done = place.call("eval", "run", "suite.yaml")
    (run_id,) = place.run_ids()
    words = [f"{CASES} of {CASES} results are missing", "it cannot be reached", "Is it running", "--resume"]
    assert_one_complaint(done, code=3, words=words)
    assert counts(place, run_id)["error"] == CASES
    assert_invalid(place, run_id)

    server.open()
    assert_goes_on(place, server, run_id)


def test_a_run_that_meets_its_deadline_counts_what_it_left_out(place: Place, server: ModelServer) -> None:
    server.mode, server.good = "slow", GOOD
    server.open()
    prepare(place, server)
    done = place.call("eval", "run", "suite.yaml", "--deadline", "3s")
    (run_id,) = place.run_ids()
    words = [f"{CASES - GOOD} of {CASES} results are missing: the deadline came first.", f"--resume {run_id}"]
    assert_one_complaint(done, code=3, words=words)
    assert counts(place, run_id)["skipped"] == CASES - GOOD
    assert_invalid(place, run_id)

    server.mode, server.good = "fine", 0
    assert_goes_on(place, server, run_id)


def test_an_endpoint_that_never_answers_ends_the_run_early(place: Place, server: ModelServer) -> None:
    """Twenty cases in a row without an answer are enough: the rest is not asked, and not forgotten."""
    server.mode = "html"
    server.open()
    prepare(place, server)
    rows = [{"prompt": f"question {n}", "expect.excludes": ["forbidden"]} for n in range(400)]
    place.write_rows("rows.jsonl", rows)
    done = place.call("eval", "run", "suite.yaml")
    (run_id,) = place.run_ids()
    words = ["400 of 400 results are missing: 20 cases in a row had no answer; the last: ", "an HTML page"]
    assert_one_complaint(done, code=3, words=words)
    found = counts(place, run_id)
    assert found["error"] + found["skipped"] == 400
    assert found["error"] < 30
    assert_invalid(place, run_id)
