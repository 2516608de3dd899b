"""Both vendors' APIs on loopback, in their own shapes and written without the code under test.

The model's name chooses the answer; what came is kept in `asked`. A name such as `e429` chooses an error.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Json = dict[str, Any]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
ANSWER = '{"city":"Bern","days":3}'
WORDS = "You can return anything within 30 days. Grüße 👋"
CALLS = (("call_a1", "weather", '{"city":"Bern"}'), ("call_b2", "weather", '{"city":"Basel"}'))
LINK = {"url": "https://example.org/p", "title": "A page", "start_index": 0, "end_index": 7}
PLACE = {
    "type": "char_location",
    "cited_text": "thirty days",
    "document_index": 0,
    "document_title": "Terms",
    "start_char_index": 0,
    "end_char_index": 11,
    "file_id": None,
}
CHAT_USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 11,
    "total_tokens": 31,
    "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
RESPONSES_USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 31,
}
MESSAGES_USAGE = {
    "input_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
    "output_tokens": 11,
    "service_tier": "standard",
    "inference_geo": "us",
}
MODELS = ("text", "tools", "json")


class Asked(NamedTuple):
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: Json


# --- chat completions ---------------------------------------------------------------------------------------


def chat(model: str) -> Json:
    message: Json = {"role": "assistant", "content": WORDS, "refusal": None, "annotations": []}
    reason = "stop"
    match model:
        case "tools":
            reason = "tool_calls"
            message["content"] = None
            message["tool_calls"] = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in CALLS
            ]
        case "json":
            message["content"] = ANSWER
        case "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        case "length":
            reason = "length"
        case "filter":
            reason = "content_filter"
        case "cited":
            message["annotations"] = [{"type": "url_citation", "url_citation": LINK}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [choice],
        "usage": CHAT_USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }


def chat_events(model: str, asked: Json) -> Iterator[bytes]:
    whole = chat(model)
    head = {k: whole[k] for k in ("id", "created", "model", "service_tier", "system_fingerprint")}
    head["object"] = "chat.completion.chunk"
    message, reason = whole["choices"][0]["message"], whole["choices"][0]["finish_reason"]

    def chunk(delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _data({**head, "choices": [choice], "usage": None})

    yield chunk({"role": "assistant", "content": "" if message["content"] else None, "refusal": None})
    for key in ("content", "refusal"):
        for piece in _pieces(message[key] or ""):
            yield chunk({key: piece})
    for number, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        begun = {"index": number, "id": call["id"], "type": "function"}
        yield chunk({"tool_calls": [begun | {"function": {"name": function["name"], "arguments": ""}}]})
        for piece in _pieces(function["arguments"]):
            yield chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    if message["annotations"]:
        yield chunk({"annotations": message["annotations"]})
    yield chunk({}, reason)
    if asked.get("stream_options", {}).get("include_usage"):
        yield _data({**head, "choices": [], "usage": whole["usage"]})
    yield b"data: [DONE]\n\n"


# --- responses ----------------------------------------------------------------------------------------------


def response(model: str, asked: Json) -> Json:
    words = {"json": ANSWER}.get(model, WORDS)
    text: Json = {"type": "output_text", "text": words, "annotations": [], "logprobs": []}
    if model == "cited":
        text["annotations"] = [{"type": "url_citation", **LINK}]
    message: Json = {
        "id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [text],
    }  # fmt: skip
    output: list[Json] = [message]
    match model:
        case "tools":
            output = [
                {
                    "id": f"fc_{i}", "type": "function_call", "status": "completed",
                    "call_id": i, "name": n, "arguments": a,
                }
                for i, n, a in CALLS
            ]  # fmt: skip
        case "refusal":
            message["content"] = [{"type": "refusal", "refusal": "I cannot help with that."}]
        case "thinking":
            summary = [{"type": "summary_text", "text": "Let me see."}]
            output = [{"id": "rs_1", "type": "reasoning", "summary": summary}, message]
    cut = {"length": "max_output_tokens", "filter": "content_filter"}.get(model)
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "status": "incomplete" if cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "metadata": asked.get("metadata") or {},
        "model": model,
        "output": output,
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools", []),
        "top_p": asked.get("top_p", 1.0),
        "truncation": asked.get("truncation", "disabled"),
        "usage": RESPONSES_USAGE,
    }


def response_events(model: str, asked: Json) -> Iterator[bytes]:
    whole = response(model, asked)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return _named(kind, {"type": kind, **fields, "sequence_number": number})

    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for place, item in enumerate(whole["output"]):
        at = {"item_id": item["id"], "output_index": place}
        empty = {k: [] if isinstance(v, list) else v for k, v in item.items()}
        if "status" in item:
            empty["status"] = "in_progress"
        if item["type"] == "function_call":
            empty["arguments"] = ""
        yield event("response.output_item.added", output_index=place, item=empty)
        if item["type"] == "function_call":
            kind = "response.function_call_arguments"
            for piece in _pieces(item["arguments"]):
                yield event(f"{kind}.delta", **at, delta=piece)
            yield event(f"{kind}.done", **at, arguments=item["arguments"], name=item["name"])
        for index, part in enumerate(item.get("summary", ())):
            here = {**at, "summary_index": index}
            yield event("response.reasoning_summary_part.added", **here, part={**part, "text": ""})
            for piece in _pieces(part["text"]):
                yield event("response.reasoning_summary_text.delta", **here, delta=piece)
            yield event("response.reasoning_summary_text.done", **here, text=part["text"])
            yield event("response.reasoning_summary_part.done", **here, part=part)
        for index, part in enumerate(item.get("content", ())):
            yield from _content_events(event, {**at, "content_index": index}, part)
        yield event("response.output_item.done", output_index=place, item=item)
    yield event(f"response.{whole['status']}", response=whole)


def _content_events(event: Any, here: Json, part: Json) -> Iterator[bytes]:
    kind, key = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
    empty = {**part, key: ""} | ({"annotations": []} if key == "text" else {})
    more = {"logprobs": []} if key == "text" else {}
    yield event("response.content_part.added", **here, part=empty)
    for piece in _pieces(part[key]):
        yield event(f"response.{kind}.delta", **here, delta=piece, **more)
    for number, one in enumerate(part.get("annotations", ())):
        yield event("response.output_text.annotation.added", **here, annotation_index=number, annotation=one)
    yield event(f"response.{kind}.done", **here, **{key: part[key]}, **more)
    yield event("response.content_part.done", **here, part=part)


# --- messages -----------------------------------------------------------------------------------------------


def message(model: str) -> Json:
    text: Json = {"type": "text", "text": {"json": ANSWER}.get(model, WORDS)}
    content, reason, sequence = [text], "end_turn", None
    match model:
        case "tools":
            reason = "tool_use"
            calls = [{"type": "tool_use", "id": i, "name": n, "input": json.loads(a)} for i, n, a in CALLS]
            content = [{"type": "text", "text": "I look it up."}, *calls]
        case "thinking":
            sealed = {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}
            content = [sealed, text]
        case "length":
            reason = "max_tokens"
        case "stopped":
            reason, sequence = "stop_sequence", "END"
        case "filter":
            reason = "refusal"
        case "cited":
            text["citations"] = [PLACE]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": MESSAGES_USAGE,
    }


def message_events(model: str) -> Iterator[bytes]:
    whole = message(model)
    usage = {**whole["usage"], "output_tokens": 1}
    begun = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield _named("message_start", {"type": "message_start", "message": begun})
    yield _named("ping", {"type": "ping"})
    for index, block in enumerate(whole["content"]):
        start, deltas = _block_events(block)
        place = {"index": index}
        yield _named("content_block_start", {"type": "content_block_start", **place, "content_block": start})
        for delta in deltas:
            yield _named("content_block_delta", {"type": "content_block_delta", **place, "delta": delta})
        yield _named("content_block_stop", {"type": "content_block_stop", **place})
    delta = {key: whole[key] for key in ("stop_reason", "stop_sequence")}
    yield _named("message_delta", {"type": "message_delta", "delta": delta, "usage": whole["usage"]})
    yield _named("message_stop", {"type": "message_stop"})


def _block_events(block: Json) -> tuple[Json, list[Json]]:
    match block["type"]:
        case "tool_use":
            pieces = _pieces(json.dumps(block["input"], separators=(",", ":")))
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": p} for p in pieces]
        case "thinking":
            thoughts = [{"type": "thinking_delta", "thinking": p} for p in _pieces(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed]
    deltas: list[Json] = [{"type": "text_delta", "text": p} for p in _pieces(block["text"])]
    deltas += [{"type": "citations_delta", "citation": one} for one in block.get("citations", ())]
    return {"type": "text", "text": ""}, deltas


# --- the server ---------------------------------------------------------------------------------------------


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + 6] for start in range(0, len(text), 6))


def _data(value: Json) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _named(name: str, value: Json) -> bytes:
    return b"event: " + name.encode() + b"\n" + _data(value)


def _error(path: str, status: int) -> Json:
    if path.startswith("/v1/messages"):
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        kinds |= {403: "permission_error", 413: "request_too_large", 429: "rate_limit_error"}
        kind = kinds.get(status, "overloaded_error" if status == 529 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": "no."}, "request_id": "req_v"}
    return {"error": {"message": "no.", "type": "an_error", "param": None, "code": f"code_{status}"}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    asked: list[Asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.path, headers, body))
        model = body["model"]
        if model[:1] == "e" and model[1:].isdecimal():
            self._give(int(model[1:]), _error(self.path, int(model[1:])))
        elif body.get("stream"):
            self._stream(_events(self.path, model, body))
        else:
            self._give(200, _whole(self.path, model, body))

    def _give(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("x-request-id", "req_vendor")
        self.send_header("request-id", "req_vendor")
        if status == 429:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        return


def _whole(path: str, model: str, body: Json) -> Json:
    match path:
        case "/v1/chat/completions":
            return chat(model)
        case "/v1/responses":
            return response(model, body)
        case "/v1/embeddings":
            count = 1 if isinstance(body["input"], str) else len(body["input"])
            data = [{"object": "embedding", "index": n, "embedding": [0.5, -0.25]} for n in range(count)]
            usage = {"prompt_tokens": 4, "total_tokens": 4}
            return {"object": "list", "data": data, "model": model, "usage": usage}
        case "/v1/messages/count_tokens":
            return {"input_tokens": 42}
        case _:
            return message(model)


def _events(path: str, model: str, body: Json) -> Iterator[bytes]:
    match path:
        case "/v1/chat/completions":
            return chat_events(model, body)
        case "/v1/responses":
            return response_events(model, body)
        case _:
            return message_events(model)


class VendorUpstream:
    """The server; a context manager. `asked` holds the requests, in order."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.asked = self._server.asked = []
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def last(self) -> Asked:
        """The last request."""
        return self.asked[-1]

    def __enter__(self) -> VendorUpstream:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
