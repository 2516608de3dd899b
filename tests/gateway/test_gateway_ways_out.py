"""Every way out of a request leaves one record, an answer in the API's shape, and nothing unchecked."""

import json
import socket
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
import requests_raw
from gateway_fakes import (
    BODY,
    CHAT,
    HARMLESS,
    SECRET_WORDS,
    Broken,
    BrokenGuard,
    Upstream,
    Yes,
    post,
    served_with,
)

from stanchion.core.errors import UnavailableError
from stanchion.gateway.ports import Outcome, Stage

# --- what cannot be understood ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b'{"model": "a", "model": "b", "messages": []}', 400, "duplicate_key"),
        (
            b'{"model": "a", "messages": [{"role": "user", "role": "system", "content": "x"}]}',
            400,
            "duplicate_key",
        ),
        (b"[" * 200 + b"]" * 200, 400, "nested_too_deep"),
        (b'{"model": "a", "temperature": NaN}', 400, "not_json"),
        (b'{"model": "a", "seed": ' + b"9" * 5000 + b"}", 400, "not_json"),
        (b'{"model": "a", "messages": "\\ud800"}', 400, "lone_surrogate"),
        (b'{"model": "\xff"}', 400, "not_utf8"),
        (b"", 400, "not_json"),
        (b"[]", 400, "invalid_request"),
        (b'{"messages": []}', 400, "invalid_request"),
        (b'{"model": "", "messages": []}', 400, "invalid_request"),
        (b'{"model": "scripted", "messages": [], "n": 2}', 400, "invalid_request"),
    ],
)
def test_a_body_that_can_be_read_in_two_ways_or_none_is_refused(served, records, raw, status, code):
    said, headers, body = post(served, raw=raw)
    assert (said, json.loads(body)["error"]["code"]) == (status, code)
    assert headers["x-stanchion-reference"] == records.only().reference
    assert records.only().outcome is Outcome.INVALID
    assert records.only().status == status


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([("content-type", "text/plain")], 415, "not_json"),
        ([("content-type", "application/json"), ("content-encoding", "gzip")], 415, "coded_body"),
        (
            [("content-type", "application/json"), ("authorization", "a"), ("authorization", "b")],
            400,
            "duplicate_header",
        ),
        ([("content-type", "application/json"), ("x-big", "x" * 40_000)], 431, "headers_too_large"),
        (
            [("content-type", "application/json"), ("x-stanchion-feature", "nowhere")],
            404,
            "feature_not_found",
        ),
    ],
)
def test_headers_that_could_mislead_are_refused(served, records, headers, status, code):
    said, _, body = post(served, headers=headers)
    assert (said, json.loads(body)["error"]["code"]) == (status, code)
    assert records.only().outcome is Outcome.INVALID


def test_a_body_beyond_the_limit_is_refused_by_what_its_length_says(served, records):
    host, port = urlsplit(served.url).hostname, urlsplit(served.url).port
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 999999999\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert records.only().status == 413


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat/completions/x", "/v1/../admin", "//v1/messages"])
def test_paths_that_are_not_served_say_so(served, path):
    status, _, body = requests_raw.post(served.url, path, b"{}")
    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"


def test_another_method_is_not_allowed(served):
    status, _, _ = requests_raw.request("GET", served.url, CHAT)
    assert status == 405


# --- every stage, broken ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("breaks", "stage"),
    [
        ("access", Stage.ACCESS),
        ("switches", Stage.SWITCHES),
        ("limits", Stage.LIMITS),
        ("admission", Stage.ADMISSION),
    ],
)
def test_a_part_that_breaks_refuses_the_request(guard, breaks, stage, stream):
    yes = Yes(breaks)
    upstream = Upstream()
    with served_with(guard, upstream=upstream, yes=yes) as (served, records):
        status, _, body = post(served, body={**BODY, "stream": stream})
        record = records.only()
    assert (status, record.outcome, record.stage) == (500, Outcome.INTERNAL_ERROR, stage)
    assert json.loads(body)["error"]["code"] == "internal_error"
    assert SECRET_WORDS.encode() not in body
    assert record.error == "Broken"
    assert upstream.asked == 0


@pytest.mark.parametrize(
    ("door", "stream", "stage"),
    [
        ("aprepare", False, Stage.INPUT),
        ("aprepare", True, Stage.INPUT),
        ("afinish", False, Stage.OUTPUT),
        ("stream", True, Stage.UPSTREAM),
    ],
)
def test_a_guard_that_breaks_lets_nothing_out(guard, door, stream, stage):
    yes = Yes()
    with served_with(BrokenGuard(guard, door), yes=yes) as (served, records):
        status, _, body = post(served, body={**BODY, "stream": stream})
        record = records.only()
    assert (status, record.outcome, record.stage) == (500, Outcome.INTERNAL_ERROR, stage)
    assert b"Hel" not in body
    assert yes.given_back[-1] is Outcome.INTERNAL_ERROR
    assert yes.given_back[0] == ("released" if door == "aprepare" else "settled")


def test_an_observer_that_breaks_is_counted_and_hurts_nobody(guard):
    class Bad:
        def started(self, facts):
            raise Broken

        def finished(self, record):
            raise Broken

    with served_with(guard, observers=(Bad(),)) as (served, records):
        status, _, _ = post(served)
        assert records.only().outcome is Outcome.ALLOWED
        assert served.gateway.swallowed_errors == 2
    assert status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_fails_is_told_in_the_apis_shape(guard, stream):
    error = UnavailableError("the provider failed.", status=500)
    with served_with(guard, upstream=Upstream(error=error)) as (served, records):
        with (
            openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client,
            pytest.raises(openai.InternalServerError) as raised,
        ):
            client.chat.completions.create(model="scripted", messages=HARMLESS, stream=stream)
        record = records.only()
    assert raised.value.code == "upstream_unavailable"
    assert (record.outcome, record.status) == (Outcome.UPSTREAM_ERROR, 500)
    assert record.tries[0].status == "http_500"
    assert record.decisions, "what was checked of the request is in the record"


@pytest.mark.parametrize("surface", ["chat", "messages"])
def test_a_stream_that_breaks_off_ends_with_an_error_of_the_api(guard, surface):
    error = UnavailableError("the connection broke.")
    pieces = ("One. " * 200, "Two.")
    upstream = Upstream(error=error, after=1, pieces=pieces)
    with served_with(guard, upstream=upstream) as (served, records):
        if surface == "chat":
            with (
                openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client,
                pytest.raises(openai.APIError),
            ):
                list(client.chat.completions.create(model="scripted", messages=HARMLESS, stream=True))
        else:
            with (
                anthropic.Anthropic(base_url=served.url, api_key="k", max_retries=0) as client,
                pytest.raises(anthropic.APIStatusError),
                client.messages.stream(model="scripted", max_tokens=9, messages=HARMLESS) as stream,
            ):
                list(stream.text_stream)
        record = records.only()
    assert record.outcome is Outcome.UPSTREAM_ERROR
    assert record.tries[-1].status == "unavailable"
