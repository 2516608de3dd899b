"""One guard and one server for the tests of the gateway: loading a guard takes seconds."""

import pytest
from gateway_faults import FaultyProvider, one_byte
from gateway_server import Records, default_guard, gateway, live, scripted_models, serve

from stanchion.guard.pipeline import Guard

SCRIPT = {
    "rules": [
        {
            "when": {"user_contains": "weather"},
            "reply": {"tool_calls": [{"name": "weather", "arguments": {"city": "Bern"}}]},
        },
        {
            "when": {"user_contains": "card of the shop"},
            "reply": {"text": "It is 4111 1111 1111 1111, keep it safe."},
        },
        {"when": {"user_contains": "think"}, "reply": {"reasoning": "Let me see.", "text": "Done."}},
        {"when": {"user_contains": "json"}, "reply": {"text": '{"city": "Bern", "days": 3}'}},
    ],
    "default": {
        "text": "You can return anything within 30 days of buying it.",
        "usage": {"input_tokens": 12, "output_tokens": 11},
    },
    "delivery": {"chunk_chars": 7},
}


@pytest.fixture(scope="session")
def guard() -> Guard:
    return default_guard()


@pytest.fixture(scope="session")
def shared(guard):
    """A server with the default policy, and what it recorded."""
    records = Records()
    configuration = live(scripted_models(SCRIPT), {"default": guard, "bare": Guard.unprotected()}, records)
    with serve(gateway(configuration)) as served:
        yield served, records


@pytest.fixture
def served(shared):
    server, records = shared
    records.clear()
    return server


@pytest.fixture
def records(shared, served):
    return shared[1]


@pytest.fixture(scope="module")
def faulty():
    with FaultyProvider() as provider:
        yield provider


@pytest.fixture
def answering(faulty):
    faulty.play = one_byte
    return faulty
