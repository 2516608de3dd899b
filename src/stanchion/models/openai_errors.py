"""Errors as the OpenAI APIs say them. Source: OpenAI API reference, error codes, and the `openai` client 3.x.

The client chooses its exception by the HTTP status alone, and raises `APIError` for a streamed event that
holds an `error`.
"""

from __future__ import annotations

from stanchion.models.surface import frame, named_frame, with_wait
from stanchion.models.wire import JsonObject

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_type(status: int) -> str:
    """The API's word for a kind of error."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def encode_error(*, status: int, code: str, message: str, retry_after_s: float | None = None) -> JsonObject:
    """The body of an answer that is an error."""
    said = with_wait(message, retry_after_s)
    return {"error": {"message": said, "type": error_type(status), "param": None, "code": code}}


def chat_error_frame(*, status: int, code: str, message: str, retry_after_s: float | None = None) -> bytes:
    """An error in the middle of a chat stream; no `[DONE]` follows."""
    return frame(encode_error(status=status, code=code, message=message, retry_after_s=retry_after_s))


def responses_error_frame(
    number: int, *, status: int, code: str, message: str, retry_after_s: float | None = None
) -> bytes:
    """An error in the middle of a responses stream.

    The reference names code, message and param beside the type; the client raises only for a key `error`.
    Both are said, so that both kinds of reader understand.
    """
    body = encode_error(status=status, code=code, message=message, retry_after_s=retry_after_s)
    inner = body["error"]
    event = {"type": "error", "code": code, "message": inner["message"], "param": None}
    return named_frame("error", event | {"sequence_number": number, "error": inner})
