"""A stand-in for the vendors on loopback: the real wire of each API, answered by a script, unguarded."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stanchion.models.events import events_of
from stanchion.models.surface import encode_json
from stanchion.models.surfaces import SURFACES

CARD = "4111 1111 1111 1111"
REPLIES = {
    "card": {"text": f"The shop's card is {CARD}, keep it safe."},
    "tool": {"calls": [("send_mail", {"to": "ann@example.org", "text": f"pay with {CARD}"})]},
    "weather": {"calls": [("weather", {"city": "Bern"})]},
    "think": {"reasoning": "Let me see.", "text": "Done."},
}
DEFAULT = "You can return anything within 30 days of buying it."


class Vendor:
    """What was asked, and the address."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answers: list[Any] = []  # taken before the script: a text, or (status, body)
        self.breaks_off = False

    def reset(self) -> None:
        self.bodies.clear()
        self.paths.clear()
        self.answers.clear()
        self.breaks_off = False

    @property
    def asked(self) -> str:
        """Everything that reached the vendor."""
        return json.dumps(self.bodies, ensure_ascii=False)


def _reply(said: str, model: str) -> Any:
    from stanchion.core.interaction import (
        FinishReason,
        Message,
        Reasoning,
        Reply,
        Role,
        Text,
        ToolCall,
        Usage,
    )
    from stanchion.core.origin import Origin

    found = next((reply for word, reply in REPLIES.items() if f"[{word}]" in said), {"text": DEFAULT})
    if "[echo]" in said:
        found = {"text": said.partition("[echo]")[2].strip()}
    parts: list[Any] = []
    if "reasoning" in found:
        parts.append(Reasoning(text=found["reasoning"]))
    if "text" in found:
        parts.append(Text(text=found["text"], origin=Origin.MODEL))
    for number, (name, arguments) in enumerate(found.get("calls", ())):
        parts.append(ToolCall(id=f"call_{number}", name=name, arguments=arguments))
    return Reply(
        message=Message(role=Role.ASSISTANT, parts=tuple(parts)),
        finish_reason=FinishReason.TOOL_CALLS if "calls" in found else FinishReason.STOP,
        model=model,
        usage=Usage(input_tokens=12, output_tokens=11),
    )


def _app(vendor: Vendor) -> Starlette:
    async def models(request: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]}
        )

    async def other(request: Request) -> Response:
        vendor.paths.append(request.url.path)
        return JSONResponse({"input_tokens": 3})

    def ask(name: str) -> Any:
        async def answer(request: Request) -> Response:
            body = await request.json()
            vendor.bodies.append(body)
            vendor.paths.append(request.url.path)
            if vendor.answers:
                given = vendor.answers.pop(0)
                return JSONResponse(given[1], status_code=given[0])
            codec = SURFACES[name]
            asked = codec.decode_request(body)
            said = asked.interaction.messages[-1]
            words = said.text or next((getattr(part, "text", "") for part in said.parts), "")
            if said.role.value == "tool":
                words = "done"
            reply = _reply(words, asked.interaction.model)
            if not asked.stream:
                return Response(
                    encode_json(
                        codec.encode_reply(reply, asked=asked, response_id="resp_vendor1", created=1)
                    ),
                    media_type="application/json",
                    headers={"x-vendor": "yes"},
                )

            async def frames() -> AsyncIterator[bytes]:
                encoder = codec.stream_encoder(asked=asked, response_id="resp_vendor1", created=1)
                events = list(events_of(reply, chunk_chars=7))
                for event in events[:-2] if vendor.breaks_off else events:
                    for frame in encoder.feed(event):
                        yield frame
                    await asyncio.sleep(0)
                for frame in [] if vendor.breaks_off else encoder.finish():
                    yield frame

            return StreamingResponse(frames(), media_type="text/event-stream", headers={"x-vendor": "yes"})

        return answer

    return Starlette(
        routes=[
            Route("/v1/chat/completions", ask("openai.chat"), methods=["POST"]),
            Route("/v1/responses", ask("openai.responses"), methods=["POST"]),
            Route("/v1/messages", ask("anthropic.messages"), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/{rest:path}", other, methods=["GET", "POST", "DELETE"]),
        ]
    )


@contextmanager
def serve_vendor() -> Iterator[Vendor]:
    """The stand-in, running in a thread."""
    vendor = Vendor()
    server = uvicorn.Server(
        uvicorn.Config(_app(vendor), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    vendor.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield vendor
    server.should_exit = True
    thread.join(10)
