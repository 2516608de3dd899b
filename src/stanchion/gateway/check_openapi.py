"""The language-neutral API described as OpenAPI 3.1, from the same types that decode and encode it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from stanchion.core.version import package_version
from stanchion.gateway.check_api import BatchAnswer, CheckAnswer, CheckBody, ToolCallBody
from stanchion.gateway.feedback import FeedbackBody, FeedbackReceipt


class ApiErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong: `code` is for machines, `message` for people."""

    message: str
    type: str
    code: str | None
    param: str | None = None


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer that is not 2xx."""

    error: ApiErrorDetail


_STATUSES = {
    400: "The body does not fit; the message says where.",
    401: "There is no key, or none that is known.",
    403: "The key may not do this, or the caller is blocked.",
    404: "There is no such feature.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    429: "A limit is reached; `Retry-After` says when to come back.",
    500: "The gateway failed; nothing counts as allowed.",
    503: "It was switched off, or a store does not answer.",
    504: "It was not decided in time.",
}
_FEATURE = {
    "name": "x-stanchion-feature",
    "in": "header",
    "required": False,
    "description": "The feature; default: the key's only one, or the gateway's default.",
    "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_.-]{0,62}$"},
}


@lru_cache(maxsize=1)
def check_openapi() -> dict[str, Any]:
    """The document of `/v1/check`, `/v1/check-tool-call` and `/v1/feedback`."""
    types: list[Any] = [CheckBody, ToolCallBody, CheckAnswer, BatchAnswer]
    _, components = msgspec.json.schema_components(
        [*types, FeedbackBody, FeedbackReceipt, ApiError], ref_template="#/components/schemas/{name}"
    )
    checked = {"anyOf": [_reference(CheckAnswer), _reference(BatchAnswer)]}
    paths = {
        "/v1/check": _post(
            "check", "Decide about a text, an exchange, or up to 100 of them.", CheckBody, checked
        ),
        "/v1/check-tool-call": _post(
            "checkToolCall",
            "Decide about a tool call before it is made.",
            ToolCallBody,
            _reference(CheckAnswer),
        ),
        "/v1/feedback": _post(
            "feedback",
            "Say that an answer was wrongly blocked, harmful or leaked something.",
            FeedbackBody,
            _reference(FeedbackReceipt),
            status=202,
        ),
    }
    keys = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A virtual key."},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A virtual key."},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stanchion gateway, check API",
            "version": package_version(),
            "description": "Decisions without a model, for applications that no SDK is wrapped for.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"header": []}, {}],  # without keys while none were made, on loopback
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": keys},
    }


def _post(
    name: str, summary: str, body: type, answer: dict[str, Any], *, status: int = 200
) -> dict[str, Any]:
    responses = {str(status): {"description": "Done.", "content": _json(answer)}}
    for code, said in _STATUSES.items():
        responses[str(code)] = {"description": said, "content": _json(_reference(ApiError))}
    operation = {
        "operationId": name,
        "summary": summary,
        "parameters": [_FEATURE],
        "requestBody": {"required": True, "content": _json(_reference(body))},
        "responses": responses,
    }
    return {"post": operation}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
