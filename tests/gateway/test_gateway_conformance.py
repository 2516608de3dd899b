"""One verdict, whatever the API, streamed or not, in whatever pieces, wherever the words stand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from gateway_server import Records, gateway, live
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Message,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
)
from stanchion.core.origin import Origin
from stanchion.gateway import coverage
from stanchion.gateway.coverage import Kind, Seen
from stanchion.gateway.ports import Outcome
from stanchion.gateway.upstream import Models, Provider, Question, make_route
from stanchion.guard.pipeline import Guard
from stanchion.models.events import Assembler, events_of
from stanchion.models.surfaces import SURFACES

PAGE = Path(__file__).parents[2] / "docs/reference/surface-matrix.md"
PLANTED = "CN-2026-00017"
PATTERNS = r"""
catalogue: house
version: 1
source: the tests
patterns:
- id: custom.contract_number
  pattern: '\b(CN-[0-9]{4}-[0-9]{5})\b'
  category: custom.pattern
  severity: high
  score: 0.9
  reason: a contract's number
  examples: ["see CN-2026-00017, page 3"]
  counter_examples: [CN-26-17]
"""
POLICY = """
version: 1
name: conformance
detectors:
  custom: {threshold: 0.7, fail: closed, deadline_ms: 5000, options: {files: [house.yaml]}}
rules:
- {id: stop, when: {category: custom.pattern}, effect: EFFECT}
tools: {default: allow}
"""
PATHS = {
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
    "anthropic.messages": "/v1/messages",
}
MODES = (False, True)


class Piecewise:
    """A provider whose answer comes in pieces that a test chooses."""

    def __init__(self) -> None:
        self.parts: tuple[Part, ...] = ()
        self.sizes: list[int] = [4]

    def events(self) -> list[StreamEvent]:
        out: list[StreamEvent] = []
        for index, part in enumerate(self.parts):
            out += self._pieces(index, part)
        return [*out, End(finish_reason=self.finish, model="m")]

    @property
    def finish(self) -> FinishReason:
        has_calls = any(isinstance(part, ToolCall) for part in self.parts)
        return FinishReason.TOOL_CALLS if has_calls else FinishReason.STOP

    def _pieces(self, index: int, part: Part) -> list[StreamEvent]:
        match part:
            case Text():
                return [TextDelta(text=piece, index=index) for piece in self._cut(part.text)]
            case Refusal():
                return [RefusalDelta(text=piece, index=index) for piece in self._cut(part.text)]
            case Reasoning():
                return [ReasoningDelta(text=piece, index=index) for piece in self._cut(part.text)]
            case ToolCall():
                raw = json.dumps(part.arguments)
                first = ArgumentDelta(index=index, call_id=part.id, name=part.name)
                return [first, *(ArgumentDelta(index=index, json=piece) for piece in self._cut(raw))]
            case _:
                return [Citation(document_id="page", quote=PLANTED, index=0, wire=WIRE)]

    def _cut(self, text: str) -> list[str]:
        pieces, at, turn = [], 0, 0
        while at < len(text):
            size = self.sizes[turn % len(self.sizes)]
            pieces.append(text[at : at + size])
            at, turn = at + size, turn + 1
        return pieces

    async def ask(self, question: Question) -> Reply:
        assembler = Assembler()
        for event in self.events():
            assembler.feed(event)
        return assembler.reply()

    async def stream(self, question: Question) -> AsyncGenerator[Sequence[StreamEvent], None]:
        for event in self.events():
            yield (event,)

    async def aclose(self) -> None:
        pass


WIRE = {
    "type": "char_location",
    "cited_text": PLANTED,
    "document_index": 0,
    "document_title": "page",
    "start_char_index": 0,
    "end_char_index": 4,
}


class Cells:
    """A gateway in this process, asked over ASGI."""

    def __init__(self, folder: Path, effect: str) -> None:
        (folder / "house.yaml").write_text(PATTERNS)
        (folder / "policy.yaml").write_text(POLICY.replace("EFFECT", effect))
        self.provider = Piecewise()
        self.records = Records()
        made = Provider(name="p", vendor="scripted", upstream=self.provider, prices={})
        models = Models({"m": make_route("m", made, "m")}, providers={"p": made})
        guard = Guard.load(folder / "policy.yaml")
        self.app = gateway(live(models, {"default": guard}, self.records))

    async def ask(self, api: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of an answer; exactly one record was made."""
        self.records.clear()
        sent: list[dict[str, Any]] = []
        left = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if left:
                return left.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": PATHS[api],
            "raw_path": PATHS[api].encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"t")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "scheme": "http",
            "http_version": "1.1",
        }
        await self.app(scope, receive, send)
        gone.set()
        start = next(m for m in sent if m["type"] == "http.response.start")
        return start["status"], b"".join(m.get("body", b"") for m in sent if m["type"] != start["type"])

    def verdict(self) -> tuple[Outcome, tuple[str, ...], tuple[str, ...]]:
        """Outcome, the rules that held and the surfaces they held on, of the last request."""
        (record,) = self.records.all
        held = [decision for decision in record.decisions if decision.rule_ids]
        rules = tuple(sorted({rule for decision in held for rule in decision.rule_ids}))
        return record.outcome, rules, tuple(sorted(decision.surface.value for decision in held))


@pytest.fixture(scope="module")
def blocking(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(tmp_path_factory.mktemp("block"), "block")


@pytest.fixture(scope="module")
def redacting(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(tmp_path_factory.mktemp("redact"), "redact")


def request(api: str, *, is_stream: bool, text: str = "Hello.") -> dict[str, Any]:
    tool = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}}
    if api == "openai.responses":
        return {"model": "m", "input": text, "stream": is_stream, "tools": [{"type": "function", **tool}]}
    body: dict[str, Any] = {
        "model": "m",
        "stream": is_stream,
        "messages": [{"role": "user", "content": text}],
    }
    if api == "openai.chat":
        return body | {"tools": [{"type": "function", "function": tool}]}
    named = {"name": "look_up", "description": "Looks up.", "input_schema": {"type": "object"}}
    return body | {"max_tokens": 100, "tools": [named]}


def answers(words: str) -> dict[Kind, tuple[Part, ...]]:
    before = Text(text="As the page says. ", origin=Origin.MODEL)
    citation = next(
        part
        for part in Reply(message=Message(role=Role.ASSISTANT, parts=(before, _cited()))).message.parts
        if part is not before
    )
    return {
        Kind.TEXT: (Text(text=words, origin=Origin.MODEL),),
        Kind.REASONING: (Reasoning(text=words), before),
        Kind.REFUSAL: (Refusal(text=words),),
        Kind.TOOL_ARGUMENTS: (ToolCall(id="c1", name="look_up", arguments={"what": [words]}),),
        Kind.CITATION: (before, citation),
    }


def _cited() -> Part:
    from stanchion.core.interaction import Opaque

    return Opaque(kind="citation", payload={"document_id": "page", "quote": PLANTED, "wire": WIRE})


SURFACE = {
    Kind.TEXT: "output",
    Kind.REASONING: "reasoning",
    Kind.REFUSAL: "output",
    Kind.TOOL_ARGUMENTS: "tool_call",
    Kind.CITATION: "output",
}
QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=6)
words = st.sampled_from(
    [
        f"The contract is {PLANTED}.",
        f"{PLANTED}",
        f"é\u00e9 \U0001f600 {PLANTED} \u4e2d",
        f'a "{PLANTED}" \\ b',
    ]
)


@pytest.mark.parametrize("kind", list(SURFACE), ids=lambda kind: kind.name.lower())
@QUICK
@given(sizes=sizes, said=words)
def test_every_cell_stops_what_the_policy_stops(
    blocking: Cells, kind: Kind, sizes: list[int], said: str
) -> None:
    async def run() -> None:
        blocking.provider.parts, blocking.provider.sizes = answers(said)[kind], sizes
        for api in PATHS:
            for is_stream in MODES:
                status, body = await blocking.ask(api, request(api, is_stream=is_stream))
                assert blocking.verdict() == (Outcome.BLOCKED, ("stop",), (SURFACE[kind],)), (api, is_stream)
                assert status == 200, (api, is_stream)
                assert PLANTED not in _said(body), (api, is_stream)

    asyncio.run(run())


@pytest.mark.parametrize(
    "kind", [Kind.TEXT, Kind.REASONING, Kind.TOOL_ARGUMENTS], ids=lambda k: k.name.lower()
)
@QUICK
@given(sizes=sizes, said=words)
def test_every_cell_redacts_the_same(redacting: Cells, kind: Kind, sizes: list[int], said: str) -> None:
    async def run() -> None:
        redacting.provider.parts, redacting.provider.sizes = answers(said)[kind], sizes
        for api in PATHS:
            for is_stream in MODES:
                _, body = await redacting.ask(api, request(api, is_stream=is_stream))
                assert redacting.verdict() == (Outcome.REDACTED, ("stop",), (SURFACE[kind],)), (
                    api,
                    is_stream,
                )
                assert PLANTED not in _said(body), (api, is_stream)

    asyncio.run(run())


@QUICK
@given(sizes=sizes)
def test_harmless_answers_come_through_unchanged(blocking: Cells, sizes: list[int]) -> None:
    said = 'Nothing to hide: 中文, \U0001f600, and "quotes".'

    async def run() -> None:
        blocking.provider.parts = (Text(text=said, origin=Origin.MODEL),)
        blocking.provider.sizes = sizes
        for api in PATHS:
            for is_stream in MODES:
                _, body = await blocking.ask(api, request(api, is_stream=is_stream))
                assert blocking.verdict() == (Outcome.ALLOWED, (), ()), (api, is_stream)
                assert said in _said(body), (api, is_stream)

    asyncio.run(run())


ASKED: dict[str, dict[Kind, dict[str, Any]]] = {
    "openai.chat": {
        Kind.SYSTEM: {
            "messages": [{"role": "system", "content": PLANTED}, {"role": "user", "content": "Hello."}]
        },
        Kind.USER: {"messages": [{"role": "user", "content": PLANTED}]},
        Kind.TOOL_RESULT: {
            "messages": [
                {"role": "user", "content": "Hello."},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": PLANTED},
            ]
        },
    },
    "openai.responses": {
        Kind.SYSTEM: {"instructions": PLANTED, "input": "Hello."},
        Kind.USER: {"input": [{"role": "user", "content": [{"type": "input_text", "text": PLANTED}]}]},
        Kind.TOOL_RESULT: {
            "input": [
                {"role": "user", "content": "Hello."},
                {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": PLANTED},
            ]
        },
    },
    "anthropic.messages": {
        Kind.SYSTEM: {"system": PLANTED, "messages": [{"role": "user", "content": "Hello."}]},
        Kind.USER: {"messages": [{"role": "user", "content": [{"type": "text", "text": PLANTED}]}]},
        Kind.TOOL_RESULT: {
            "messages": [
                {"role": "user", "content": "Hello."},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "c1", "name": "look_up", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "c1", "content": PLANTED}],
                },
            ]
        },
        Kind.RETRIEVED: {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": PLANTED},
                        },
                        {"type": "text", "text": "Sum up."},
                    ],
                }
            ]
        },
    },
}
ASKED_SURFACE = {
    Kind.SYSTEM: "system",
    Kind.USER: "input",
    Kind.TOOL_RESULT: "tool_result",
    Kind.RETRIEVED: "retrieved",
}


@pytest.mark.parametrize("is_stream", MODES, ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("api", "kind"), [(api, kind) for api, kinds in ASKED.items() for kind in kinds], ids=str
)
def test_every_input_cell_stops_what_the_policy_stops(
    blocking: Cells, api: str, kind: Kind, is_stream: bool
) -> None:
    blocking.provider.parts = (Text(text="Fine.", origin=Origin.MODEL),)
    body = request(api, is_stream=is_stream)
    body.pop("messages", None)
    body.pop("input", None)
    status, answered = asyncio.run(blocking.ask(api, body | ASKED[api][kind]))
    assert blocking.verdict() == (Outcome.BLOCKED, ("stop",), (ASKED_SURFACE[kind],))
    assert status == 200
    assert "Fine." not in _said(answered)


def _said(body: bytes) -> str:
    """Every text of an answer, the pieces of a stream put together."""
    texts: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, str):
            texts.append(value)
            if value[:1] in "{[":
                with contextlib.suppress(ValueError):
                    collect(json.loads(value))
        elif isinstance(value, dict):
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)

    text = body.decode()
    if not re.match(r"(event|data): ", text):
        collect(json.loads(text))
        return "\n".join(texts)
    deltas: list[str] = []
    for line in text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            value = json.loads(line[6:])
            collect(value)
            deltas += _deltas(value)
    return "\n".join([*texts, "".join(deltas), json.dumps("".join(deltas))])


def _deltas(value: dict[str, Any]) -> list[str]:
    """What a frame adds to words or arguments."""
    found: list[str] = []
    for choice in value.get("choices", ()):
        delta = choice.get("delta", {})
        found += [delta[k] for k in ("content", "refusal", "reasoning_content") if delta.get(k)]
        found += [call["function"].get("arguments", "") for call in delta.get("tool_calls", ())]
    delta = value.get("delta")
    if isinstance(delta, str):
        found.append(delta)
    elif isinstance(delta, dict):
        found += [delta[k] for k in ("text", "thinking", "partial_json") if delta.get(k)]
    return found


# --- the matrix itself --------------------------------------------------------------------------------------


def test_no_text_of_any_api_passes_unseen() -> None:
    assert coverage.holes() == ()
    cells = coverage.matrix()
    assert {cell.api for cell in cells} == {name for name, codec in SURFACES.items() if codec.can_stream}
    assert all(cell.surfaces for cell in cells if cell.seen is Seen.CHECKED)


def test_streamed_and_whole_answers_come_before_the_guard_alike() -> None:
    cells = {(c.api, c.kind, c.is_stream): (c.seen, c.surfaces) for c in coverage.matrix() if c.is_answer}
    for (api, kind, is_stream), seen in cells.items():
        assert seen == cells[api, kind, not is_stream], (api, kind)


def test_every_event_of_the_internal_model_has_a_rule() -> None:
    assert {one.__name__ for one in coverage.event_types()} == set(coverage.EVENT_SURFACES)


def test_a_hole_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "request_fields", lambda interaction: iter(()))
    found = coverage.holes()
    assert found
    assert all(cell.seen is Seen.HOLE and not cell.is_answer for cell in found)


def test_the_reference_shows_the_matrix_that_the_code_makes() -> None:
    assert coverage.as_markdown() in PAGE.read_text(encoding="utf-8"), (
        "run python -m stanchion.gateway.coverage"
    )


def test_the_pieces_of_this_suite_amount_to_the_answer() -> None:
    provider = Piecewise()
    for parts in answers("one two three").values():
        provider.parts = parts
        whole = asyncio.run(provider.ask(Question(request=None, surface="openai.chat", model="m")))  # type: ignore[arg-type]
        assert list(events_of(whole))[-1] == End(finish_reason=provider.finish, model="m")
