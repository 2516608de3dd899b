"""OpenAI responses API, answers of ours: the response object, and a stream of typed events. Pure, no I/O.

Shapes: OpenAI API reference, the response object and its streaming events. Each item has its place in the
output from its beginning; tool calls stay open until the end, so that their pieces may come in any order. Ids
of items are made from the answer's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Reasoning,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    StreamEvent,
    TextDelta,
    ToolDefinition,
    UnknownEvent,
    Usage,
    UsageEvent,
)
from stanchion.models.events import events_of, merged_usage
from stanchion.models.openai_citations import flat_annotation
from stanchion.models.openai_errors import responses_error_frame
from stanchion.models.openai_responses_parts import API, encode_reasoning, is_own_reasoning
from stanchion.models.served import served_by
from stanchion.models.surface import custom_tools, encode_json, named_frame
from stanchion.models.wire import JsonObject, Request

_ECHOED = ("metadata", "parallel_tool_calls", "reasoning", "text", "tool_choice", "truncation", "user")
_ECHOED_TOO = ("max_tool_calls", "safety_identifier", "service_tier", "store", "top_logprobs")
_CUT_SHORT = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.PAUSED: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}


def response_head(asked: Request, *, response_id: str, created: int) -> JsonObject:
    """The response object before anything was said; what the client set is echoed, as the API does."""
    interaction, extras = asked.interaction, asked.extras
    sampling = interaction.sampling
    choice = sampling.tool_choice or "auto"
    named = {"type": "function", "name": choice.removeprefix("tool:")}
    head: JsonObject = {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": sampling.max_output_tokens,
        "metadata": {},
        "model": interaction.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": extras.get("previous_response_id"),
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": choice if choice == named["name"] else named,
        "tools": [_echoed_tool(tool) for tool in interaction.tools],
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": None,
    }
    if sampling.response_schema is not None:
        name = sampling.response_name or "response"
        schema = {"type": "json_schema", "name": name, "schema": sampling.response_schema}
        head["text"] = {"format": schema | {"strict": True}}
    return head | {name: extras[name] for name in (*_ECHOED, *_ECHOED_TOO) if name in extras}


def _echoed_tool(tool: ToolDefinition) -> JsonObject:
    if tool.extra is not None and tool.extra.kind == f"{API}:tool":
        return dict(tool.extra.payload)
    said = {"description": tool.description} if tool.description else {}
    return {"type": "function", "name": tool.name, **said, "parameters": tool.parameters, "strict": False}


def encode_usage(usage: Usage) -> JsonObject | None:
    """Token counts; None when none is known."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    asked, said = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": asked,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens or 0,
            "cache_write_tokens": 0 if usage.cache_write_tokens is UNSET else usage.cache_write_tokens,
        },
        "output_tokens": said,
        "output_tokens_details": {
            "reasoning_tokens": 0 if usage.reasoning_tokens is UNSET else usage.reasoning_tokens
        },
        "total_tokens": asked + said,
    }


def encode_response(reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
    """A whole response: what the stream of the same reply ends with."""
    encoder = ResponseStream(asked=asked, response_id=response_id, created=created)
    for event in events_of(reply):
        encoder.feed(event)
    return encoder.response


class ResponseStream:
    """Typed events of one answer. Words that follow words of the same part take a short way."""

    def __init__(self, *, asked: Request, response_id: str, created: int) -> None:
        self.lost: dict[str, int] = {}
        self.response = response_head(asked, response_id=response_id, created=created)
        self._custom = custom_tools(asked)
        self._number = 0
        self._out: list[bytes] = []
        self._usage = Usage()
        self._items: list[JsonObject] = []
        self._current: int | None = None
        self._part: JsonObject | None = None
        self._open: tuple[str, int] | None = None
        self._pieces: list[str] = []
        self._text_head = b""
        self._calls: dict[int, tuple[int, list[str]]] = {}
        self._is_refused = False
        self._rules: dict[type, Callable[[Any], None]] = {
            TextDelta: self._text,
            RefusalDelta: self._refusal,
            ReasoningDelta: self._reasoning,
            ArgumentDelta: self._call,
            Citation: self._cite,
            UnknownEvent: self._unknown,
            End: self._end,
        }

    def feed(self, event: StreamEvent) -> list[bytes]:
        """The frames of one event."""
        if type(event) is TextDelta and self._open == ("output_text", event.index):
            self._pieces.append(event.text)
            self._number += 1
            return [self._text_head + encode_json(event.text) + b',"sequence_number":%d}\n\n' % self._number]
        if isinstance(event, UsageEvent):
            self._usage = merged_usage(self._usage, event.usage)
            self.response |= {
                k: v for k, v in served_by("openai", event.usage).items() if k == "service_tier"
            }
            return []
        self._out = []
        if not self._number:
            self._say("response.created", response=self.response)
            self._say("response.in_progress", response=self.response)
        self._rules[type(event)](event)
        return self._out

    def finish(self) -> list[bytes]:
        """Nothing: the last event held the whole response."""
        return []

    def error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> list[bytes]:
        """An `error` event; the `openai` client raises `APIError`."""
        self._number += 1
        return [
            responses_error_frame(
                self._number, status=status, code=code, message=message, retry_after_s=retry_after_s
            )
        ]

    def _say(self, kind: str, **fields: Any) -> None:
        self._number += 1
        self._out.append(named_frame(kind, {"type": kind, **fields, "sequence_number": self._number}))

    # --- items and parts ---

    def _begin_item(self, kind: str, prefix: str, **fields: Any) -> int:
        number = len(self._items)
        item = {"id": f"{prefix}_{self.response['id']}_{number}", "type": kind, **fields}
        self._items.append(item)
        self._say("response.output_item.added", output_index=number, item=item)
        return number

    def _end_item(self, number: int) -> None:
        item = self._items[number]
        if "status" in item:
            item["status"] = "completed"
        self._say("response.output_item.done", output_index=number, item=item)

    def _close(self) -> None:
        """Close the message or reasoning item that is open."""
        self._close_part()
        if self._current is not None:
            self._end_item(self._current)
            self._current = None

    def _place(self, key: str = "content") -> JsonObject:
        number = self._current or 0
        item = self._items[number]
        place = {"item_id": item["id"], "output_index": number}
        return place | ({"content_index": len(item["content"])} if key == "content" else {"summary_index": 0})

    def _close_part(self) -> None:
        part, opened = self._part, self._open
        self._part = self._open = None
        if part is None or opened is None:
            return
        kind, text = opened[0], "".join(self._pieces)
        if kind == "summary_text":
            part["text"] = text
            self._items[self._current or 0]["summary"].append(part)
            self._say("response.reasoning_summary_text.done", **self._place("summary"), text=text)
            self._say("response.reasoning_summary_part.done", **self._place("summary"), part=part)
            return
        key = "refusal" if kind == "refusal" else "text"
        part[key] = text
        more: JsonObject = {"logprobs": []} if kind == "output_text" else {}
        self._say(f"response.{kind}.done", **self._place(), **{key: text}, **more)
        self._say("response.content_part.done", **self._place(), part=part)
        self._items[self._current or 0]["content"].append(part)

    def _in_message(self, kind: str, index: int, part: JsonObject) -> None:
        if self._open == (kind, index):
            return
        self._close_part()
        if self._current is None or self._items[self._current]["type"] != "message":
            self._close()
            fields = {"status": "in_progress", "role": "assistant", "content": []}
            self._current = self._begin_item("message", "msg", **fields)
        self._open, self._part, self._pieces = (kind, index), part, []
        self._say("response.content_part.added", **self._place(), part=part)

    # --- events ---

    def _text(self, event: TextDelta) -> None:
        if event.stands_in is True:  # as a model's own refusal: helpers that parse answers leave it alone
            self._is_refused = True
            self._refusal(RefusalDelta(text=event.text, index=event.index))
            return
        self._in_message("output_text", event.index, {"type": "output_text", "text": "", "annotations": []})
        self._pieces.append(event.text)
        place = {**self._place(), "logprobs": []}
        self._say("response.output_text.delta", **place, delta=event.text)
        head = encode_json({"type": "response.output_text.delta", **place})[:-1]
        self._text_head = b"event: response.output_text.delta\ndata: " + head + b',"delta":'

    def _refusal(self, event: RefusalDelta) -> None:
        self._in_message("refusal", event.index, {"type": "refusal", "refusal": ""})
        self._pieces.append(event.text)
        self._say("response.refusal.delta", **self._place(), delta=event.text)

    def _cite(self, event: Citation) -> None:
        annotation = flat_annotation(event.wire, event.quote, event.document_id)
        if annotation is None or self._part is None or self._part["type"] != "output_text":
            self._lose("citation")
            return
        place = {**self._place(), "annotation_index": len(self._part["annotations"])}
        self._part["annotations"].append(annotation)
        self._say("response.output_text.annotation.added", **place, annotation=annotation)

    def _reasoning(self, event: ReasoningDelta) -> None:
        if self._open != ("summary_text", event.index):
            if not event.text and not is_own_reasoning(Reasoning(text="", signature=event.signature)):
                return  # another vendor's seal has no meaning here
            self._close()
            self._current = self._begin_item("reasoning", "rs", summary=[])
            self._open, self._pieces = ("summary_text", event.index), []
        if event.text:
            if self._part is None:
                self._part = {"type": "summary_text", "text": ""}
                place = self._place("summary")
                self._say("response.reasoning_summary_part.added", **place, part=self._part)
            self._pieces.append(event.text)
            place = self._place("summary")
            self._say("response.reasoning_summary_text.delta", **place, delta=event.text)
        if event.signature is not None:
            self._seal(event.signature)

    def _seal(self, signature: str) -> None:
        """Close the item as the API will take it again, when the API made it."""
        text = "".join(self._pieces)
        self._close_part()
        item = self._items[self._current or 0]
        known = Reasoning(text=text, signature=signature)
        said = encode_reasoning(known if is_own_reasoning(known) else Reasoning(text=text))
        item |= {key: value for key, value in (said or {}).items() if key != "id"}
        self._close()

    def _call(self, event: ArgumentDelta) -> None:
        if event.index not in self._calls:
            self._close()
            kind, key = ("function_call", "arguments")
            if event.name in self._custom:
                kind, key = ("custom_tool_call", "input")
            more: JsonObject = {"status": "in_progress"} if key == "arguments" else {}
            fields = {"call_id": event.call_id or "", "name": event.name or "", key: "", **more}
            number = self._begin_item(kind, "fc" if more else "ctc", **fields)
            self._calls[event.index] = (number, [])
        if event.json:
            number, pieces = self._calls[event.index]
            pieces.append(event.json)
            item = self._items[number]
            kind = _CALL_EVENTS[item["type"]]
            self._say(f"{kind}.delta", item_id=item["id"], output_index=number, delta=event.json)

    def _close_calls(self) -> None:
        for number, pieces in self._calls.values():
            item, text = self._items[number], "".join(pieces)
            if not text and item["type"] == "function_call":  # clients parse it
                text = "{}"
                place = {"item_id": item["id"], "output_index": number}
                self._say("response.function_call_arguments.delta", **place, delta=text)
            key = "arguments" if item["type"] == "function_call" else "input"
            item[key] = text
            more = {"name": item["name"]} if key == "arguments" else {}
            kind = _CALL_EVENTS[item["type"]]
            place = {"item_id": item["id"], "output_index": number}
            self._say(f"{kind}.done", **place, **{key: text}, **more)
            self._end_item(number)
        self._calls.clear()

    def _unknown(self, event: UnknownEvent) -> None:
        api, _, kind = event.kind.partition(":")
        if api != API or not isinstance(event.payload, dict) or kind.startswith("part."):
            self._lose(event.kind)
            return
        if kind.startswith("event."):
            payload = {key: value for key, value in event.payload.items() if key != "type"}
            self._say(kind.removeprefix("event."), **payload)
            return
        self._close()
        self._items.append(dict(event.payload))
        number = len(self._items) - 1
        self._say("response.output_item.added", output_index=number, item=event.payload)
        self._say("response.output_item.done", output_index=number, item=event.payload)

    def _lose(self, kind: str) -> None:
        self.lost[kind] = self.lost.get(kind, 0) + 1

    def _end(self, event: End) -> None:
        self._close()
        self._close_calls()
        reason = event.finish_reason
        self.response["output"] = self._items
        self.response["usage"] = encode_usage(self._usage)
        self.response["model"] = event.model or self.response["model"]
        is_cut = reason in _CUT_SHORT and not self._is_refused
        status = "incomplete" if is_cut else "completed"
        if reason is FinishReason.ERROR:
            status = "failed"
            self.response["error"] = {"code": "server_error", "message": "The model failed."}
        elif status == "incomplete":
            self.response["incomplete_details"] = {"reason": _CUT_SHORT[reason]}
        self.response["status"] = status
        self._say(f"response.{status}", response=self.response)


_CALL_EVENTS = {
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
}
