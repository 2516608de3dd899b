"""The check API as it describes itself: valid, complete, and true for what is sent by it."""

from __future__ import annotations

import json

import pytest
import requests_raw
import schemathesis
from gateway_server import Records, gateway, live, scripted_models, serve
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis import checks as schemathesis_checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from stanchion.gateway.check_openapi import check_openapi
from stanchion.gateway.pages import make_pages

PATHS = ("/v1/check", "/v1/check-tool-call")


@pytest.fixture(scope="module")
def served(guard):
    app = gateway(live(scripted_models({"default": {"text": "x"}}), {"default": guard}, Records()))
    app.pages.update(make_pages(app))
    with serve(app) as found:
        yield found


def test_the_description_is_valid_and_served(served):
    document = json.loads(requests_raw.request("GET", served.url, "/openapi.json")[2])
    validate(document)
    assert document == json.loads(json.dumps(check_openapi()))
    assert set(document["paths"]) == {*PATHS, "/v1/feedback"}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", PATHS)
def test_answers_are_as_described_whatever_is_sent(served, path, mode):
    described = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    checks = [
        schemathesis_checks.not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_schema_conformance,
    ]

    @given(case=described[path]["POST"].as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def run(case):
        case.call_and_validate(checks=checks)

    run()
