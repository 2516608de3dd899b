"""Schemas with the bounds of 64-bit numbers are asked about like any other, and gated by every digit."""

import json

import pytest
import requests_raw
from vendor_gateway import served_vendors
from vendor_upstream import VendorUpstream

INT64, UINT64 = 2**63 - 1, 2**64 - 1


@pytest.fixture(scope="module")
def asked(guard):
    """A function that asks with a tool whose schema holds a bound: status, record, what the provider saw."""
    with VendorUpstream() as upstream, served_vendors(upstream, {"default": guard}) as (served, records):

        def ask(path, bound):
            records.clear()
            parameters = {"type": "object", "properties": {"a": {"type": "integer", "maximum": bound}}}
            tool = {
                "/v1/chat/completions": {
                    "type": "function",
                    "function": {"name": "f", "parameters": parameters},
                },
                "/v1/responses": {"type": "function", "name": "f", "parameters": parameters},
                "/v1/messages": {"name": "f", "input_schema": parameters},
            }[path]
            body = {"model": "text", "tools": [tool], "max_tokens": 99}
            said = [{"role": "user", "content": "Hello"}]
            if path == "/v1/responses":
                body = {"model": "text", "tools": [tool], "input": said, "store": False}
            else:
                body["messages"] = said
            data = json.dumps(body).encode()
            headers = [*requests_raw.JSON, ("x-api-key", "k"), ("authorization", "Bearer k")]
            status, _, answer = requests_raw.post(served.url, path, data, headers=headers)
            return status, answer, records.only(), upstream

        yield ask


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("bound", [2**53, INT64, UINT64, -(2**63), 10**30])
def test_a_bound_beyond_two_to_the_53_reaches_the_model_as_it_is(asked, path, bound):
    status, answer, record, upstream = asked(path, bound)
    assert status == 200, answer
    assert f'"maximum":{bound}' in json.dumps(upstream.last.body, separators=(",", ":"))
    assert record.components.tools.startswith("sha256:")


def test_every_digit_counts_for_the_gate(asked):
    digests = {
        asked("/v1/chat/completions", bound)[2].components.tools for bound in (2**53, 2**53 + 1, INT64)
    }
    assert len(digests) == 3
