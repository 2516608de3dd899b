"""Every fault of a provider: no unguarded byte, one record that says what happened, an error of the API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path

import pytest
import requests_raw
from chaos_fixtures import CHAT, HARMLESS, KEY, MESSAGES, error_of, models_of, unescaped
from gateway_faults import CARD, DEADLINE_S, PROVIDER_FAULTS, SECRET, FaultyProvider
from gateway_server import Records, gateway, live, serve

from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.http_protocol import bounded_protocol


@pytest.fixture(scope="module")
def chaos(guard):
    with _in_front(guard, deadline_s=DEADLINE_S) as made:
        yield made


@pytest.fixture(scope="module")
def patient(guard):
    """The same with time enough: on a busy machine no other fault may end by the deadline."""
    with _in_front(guard, deadline_s=60.0) as made:
        yield made


@contextlib.contextmanager
def _in_front(guard, *, deadline_s):
    records = Records()
    with FaultyProvider() as faulty:
        models = models_of(faulty.url, timeout_s=2 * deadline_s)
        feature = FeatureModel(deadline_s=deadline_s)
        configuration = live(models, {"default": guard}, records, feature_model=feature)
        with serve(gateway(configuration), http=bounded_protocol()) as served:
            yield served, records, faulty
            asyncio.run_coroutine_threadsafe(models.aclose(), served.loop).result(5)


def ask(served, path, *, stream):
    body = {"model": "m", "messages": HARMLESS, "stream": stream, "max_tokens": 50}
    return requests_raw.post(served.url, path, json.dumps(body).encode())


CASES = [
    pytest.param(
        fault, path, stream, id=f"{fault.id}-{path.rpartition('/')[2]}-{'stream' if stream else 'whole'}"
    )
    for fault in PROVIDER_FAULTS
    for path, stream in ((CHAT, False), (CHAT, True), (MESSAGES, True))
    if (fault.streamed if stream else fault.whole) is not None
]


@pytest.mark.parametrize(("fault", "path", "stream"), CASES)
def test_a_fault_of_the_provider_ends_as_the_table_says(chaos, patient, fault, path, stream):
    expected = fault.streamed if stream else fault.whole
    served, records, faulty = chaos if expected.outcome == "deadline" else patient
    records.clear()
    faulty.play = fault.play
    status, headers, body = ask(served, path, stream=stream)
    record = records.only()
    told = error_of(path, body)
    shown = unescaped(body) + str(headers)
    for words in (CARD, CARD.replace(" ", ""), "1111 1111", SECRET, KEY, "169.254"):
        assert words not in shown
    assert record.outcome.value == expected.outcome
    assert record.error == expected.error
    assert record.tries
    assert record.tries[-1].provider == "faulty"
    if expected.code:
        assert told, "an error in the API's own shape"
        assert b"[DONE]" not in body
        if path == CHAT:
            assert told == expected.code
        assert status in (expected.status, 200)
        assert (status == 200) <= stream, "only a stream that has begun can end in an error under 200"
    else:
        assert (status, told) == (expected.status, "")
    assert headers["x-stanchion-reference"] == record.reference


def test_what_follows_an_answer_is_not_the_next_ones(chaos):
    served, records, faulty = chaos
    splits = next(fault for fault in PROVIDER_FAULTS if fault.id == "second-answer")
    for _ in range(5):
        records.clear()
        faulty.play = splits.play
        status, _, body = ask(served, CHAT, stream=False)
        assert status == 200
        assert SECRET.encode() not in body
        assert b"It is" in body


def _held(served):
    """What lives: file descriptors of the process, tasks of the loop, what is in progress, resident bytes."""
    end = time.monotonic() + 5
    while served.gateway.in_flight and time.monotonic() < end:
        time.sleep(0.02)
    tasks = served.call(lambda: len(asyncio.all_tasks()))
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return len(os.listdir("/proc/self/fd")), tasks, served.gateway.in_flight, resident


SLOW = ("stalls", "drips", "pings", "huge", "slow", "one-byte")
BRIEF = (
    "reset-in-head",
    "reset-midway",
    "closes-midway",
    "second-answer",
    "status-500",
    "cut-json",
    "error-midway",
    "after-the-end",
    "gzip",
)


@pytest.mark.parametrize(
    ("ids", "rounds"),
    [
        pytest.param(BRIEF, 2, id="brief"),
        pytest.param((), 20, id="long", marks=pytest.mark.soak),
    ],
)
def test_no_fault_leaves_a_connection_a_task_or_a_descriptor_behind(chaos, ids, rounds):
    served, records, faulty = chaos
    faults = [f for f in PROVIDER_FAULTS if (f.id in ids if ids else not f.id.startswith(SLOW))]

    def everything():
        for fault in faults:
            for stream in (False, True):
                if (fault.streamed if stream else fault.whole) is not None:
                    faulty.play = fault.play
                    ask(served, CHAT, stream=stream)
        records.clear()

    everything()
    before = _held(served)
    for _ in range(rounds):
        everything()
    after = _held(served)
    assert after[2] == 0
    assert after[1] <= before[1] + 1, (before, after)
    assert after[0] <= before[0] + 3, (before, after)
    if not ids:
        assert after[3] - before[3] < 8 * 1024 * 1024, "memory grows with faults"
