"""The data plane as a raw ASGI application: one table of paths, one way in, one way out.

Every request that reaches a path of the API ends in `_settle`, whatever happened to it: there its one record
is made, and the observers hear of it once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from stanchion.core.clock import now_iso
from stanchion.core.errors import StanchionError
from stanchion.core.running_loop import running_loop
from stanchion.gateway.answering import send_refusal
from stanchion.gateway.deadlines import Deadlines
from stanchion.gateway.enforcement import choose_feature, read_request, take_facts
from stanchion.gateway.exchange import Exchange, Interrupt
from stanchion.gateway.http_io import (
    Answer,
    ClientGone,
    Receive,
    Scope,
    Send,
    read_body,
    read_headers,
)
from stanchion.gateway.http_request import BODY, WHEN_GONE, WHOLE
from stanchion.gateway.json_body import invalid
from stanchion.gateway.live import Feature, Live
from stanchion.gateway.manifest import answered_surfaces, asked_surfaces, counts
from stanchion.gateway.permits import switched_off, watch_switches
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Limits, Outcome, Refused, Stage
from stanchion.gateway.record import Recorder
from stanchion.gateway.request_ids import begin_request
from stanchion.gateway.shadows import Shadows
from stanchion.gateway.trace_facts import content_hashes, traced
from stanchion.models.anthropic_surface import encode_error as anthropic_error
from stanchion.models.openai_errors import encode_error as openai_error
from stanchion.models.surface import SurfaceCodec, encode_json

_log = logging.getLogger(__name__)
Answering = Callable[[Exchange, SurfaceCodec, Answer], Awaitable[None]]
Served = tuple[SurfaceCodec, Answering]
_SURFACES = {surface.value: surface for surface in ApiSurface}
_VERSIONS = ("1.1", "1.0")
Page = Callable[[Live, Scope], tuple[int, object]]


class Gateway:
    """The application. `swap` changes the configuration for requests that begin from then on."""

    def __init__(
        self, live: Live, surfaces: dict[str, Served], *, pages: dict[str, Page] | None = None
    ) -> None:
        """`surfaces` maps paths to codecs and what answers, `pages` does so for paths of GET.

        A page whose path ends in a slash answers for everything below it.
        """
        self._live = live
        self._codecs = surfaces
        self.pages: dict[str, Page] = dict(pages or {})
        self._running: set[Exchange] = set()
        self._deadlines = Deadlines(self._running)
        self._is_draining = False
        self._ended = asyncio.Event()
        self.swallowed_errors = 0
        self.unserved = {"path": 0, "method": 0}
        self.shadows = Shadows(record_of)

    @property
    def live(self) -> Live:
        """The configuration of new requests."""
        return self._live

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return len(self._running)

    @property
    def is_draining(self) -> bool:
        """Whether it gets ready to stop; readiness says no from then on."""
        return self._is_draining

    def swap(self, live: Live) -> Live:
        """Take another configuration; the one before, which requests may still use."""
        before, self._live = self._live, live
        return before

    async def unused(self, live: Live) -> None:
        """Wait until no request lives under this configuration any more."""
        while any(exchange.live is live for exchange in self._running):
            self._ended.clear()
            await self._ended.wait()

    def drain(self) -> None:
        """Say no to readiness from now on; requests are still answered."""
        self._is_draining = True

    def end_all(self) -> None:
        """End every request that is still being answered."""
        for exchange in tuple(self._running):
            exchange.interrupt(Interrupt.DRAIN)

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is no call of an API."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http" and scope.get("http_version") not in _VERSIONS:
            await Answer(send).whole(505, [(b"connection", b"close")], b"")
        elif scope["type"] == "http":
            _, path = _split(scope["path"])
            await self._page(scope, path, send, is_known=path in self._codecs)

    def _where_else(self, path: str) -> str:
        """What is told somebody at a path that is none: mostly the base URL is a little wrong."""
        if f"/v1{path}" in self._codecs:
            return "there is nothing at this path. The base_url of an OpenAI client ends in /v1."
        if path.startswith("/v1/v1/") and path[3:] in self._codecs:
            return "there is nothing at this path. The base_url of an Anthropic client does not end in /v1."
        return "there is nothing at this path."

    async def _page(self, scope: Scope, path: str, send: Send, *, is_known: bool) -> None:
        page = self.pages.get(path)
        if page is None and "/models/" in path:
            page = self.pages.get(path[: path.index("/models/") + len("/models/")])
        if page is not None and scope["method"] in ("GET", "HEAD"):
            status, value = page(self._live, scope)
        elif page is not None or is_known:
            await self._unserved(send, path, "method", "this path is asked in another way.")
            return
        else:
            await self._unserved(send, path, "path", self._where_else(path))
            return
        body = value if isinstance(value, bytes) else encode_json(value)
        kind = b"text/plain; charset=utf-8" if isinstance(value, bytes) else b"application/json"
        await Answer(send).whole(status, [(b"content-type", kind)], body)

    async def _unserved(self, send: Send, path: str, reason: str, message: str) -> None:
        """Refuse what is not served, in the words of the API nearest to the path; there is no record."""
        self.unserved[reason] += 1
        reference = self._live.ids.new("req")
        _log.info("request %s: no such %s", reference, reason)  # the path is the client's own words
        status, code = (405, "method_not_allowed") if reason == "method" else (404, "not_found")
        encode = anthropic_error if _is_anthropic(path) else openai_error
        error = encode(status=status, code=code, message=f"{message} Reference: {reference}.")
        headers = [(b"content-type", b"application/json"), (b"x-stanchion-reference", reference.encode())]
        await Answer(send).whole(status, headers, encode_json(error))

    def _served(self, scope: Scope) -> tuple[str, Served] | None:
        """The feature that the path names, and what answers there; None for what is no call of an API."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope.get("http_version") not in _VERSIONS:
            return None
        feature, path = _split(scope["path"])
        served = self._codecs.get(path)
        return None if served is None else (feature, served)

    def _begun(self, codec: SurfaceCodec) -> Exchange:
        """A request that begins now, in this task."""
        live = self._live
        exchange = Exchange(
            id=live.ids.new("req"),
            surface=_SURFACES[codec.name],
            live=live,
            headers={},
            started_ns=live.clock.monotonic_ns(),
        )
        begin_request(exchange.id)
        exchange.at = now_iso(live.clock)
        exchange.loop = loop = running_loop()
        exchange.task = asyncio.current_task(loop)
        exchange.is_looked_at = True
        self._running.add(exchange)
        self._deadlines.watch(loop)
        return exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        found = self._served(scope)
        if found is None:
            await self._elsewhere(scope, receive, send)
            return
        named, (codec, answering) = found
        exchange, answer = self._begun(codec), Answer(send, at_once=scope.get(WHOLE))
        unwatched: Callable[[None], object] | None = None
        try:
            try:
                live = exchange.live
                exchange.within(live.body_timeout_s, Interrupt.SLOW_BODY)
                feature = await self._read(exchange, codec, named, (scope, receive))
                exchange.within(feature.deadline_s)
                if feature.records_first and live.recorder is not None:
                    exchange.before_end = partial(self._recorded_first, exchange, live.recorder)
                unwatched = _watch(scope, receive, exchange)
                self._tell_started(exchange)
                watch_switches(exchange)
                try:
                    await answering(exchange, codec, answer)
                finally:
                    exchange.unfollow()
            except asyncio.CancelledError:
                await self._interrupted(exchange, codec, answer)
            except ClientGone:
                exchange.outcome = Outcome.CLIENT_GONE
            except Refused as refused:
                exchange.status = exchange.status or refused.status
                await send_refusal(exchange, codec, refused, answer, encoder=exchange.encoder)
            except Exception as error:
                await self._crashed(exchange, codec, answer, error)
        except asyncio.CancelledError:  # interrupted while saying why it was refused
            if exchange.interrupted_by is None:
                raise
            _uncancel()
        finally:
            if unwatched is not None:
                unwatched(None)
            if self._settle(exchange) and exchange.live.parts.limits is not None:
                try:
                    await _give_back(exchange, exchange.live.parts.limits)
                except Exception as error:
                    self._swallow(exchange, error)

    async def _read(
        self, exchange: Exchange, codec: SurfaceCodec, named: str, asked: tuple[Scope, Receive]
    ) -> Feature:
        """Who asks, for which feature, and what: everything before the first decision."""
        live = exchange.live
        scope, receive = asked
        exchange.headers = read_headers(scope["headers"], max_bytes=live.max_header_bytes)
        exchange.facts = traced(exchange)
        if live.parts.access is not None:
            exchange.stage = Stage.ACCESS
            exchange.caller = await live.parts.access.authenticate(exchange.headers, surface=exchange.surface)
        feature = exchange.feature = choose_feature(exchange, named)
        exchange.guarantee, exchange.stage = feature.guarantee, Stage.DECODE
        _check_media_type(exchange)
        raw = await read_body(
            receive, exchange.headers, max_bytes=feature.max_body_bytes, here=scope.get(BODY)
        )
        take_facts(exchange, feature, read_request(codec, raw))
        return feature

    async def _interrupted(self, exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
        why = exchange.interrupted_by
        if why is None:
            exchange.error = "cancelled"
            exchange.outcome = Outcome.CLIENT_GONE
            raise asyncio.CancelledError
        _uncancel()
        exchange.error = exchange.error or why.value
        if why is Interrupt.CLIENT_GONE:
            exchange.outcome = Outcome.CLIENT_GONE
            return
        refused = _REFUSALS.get(why)
        if exchange.engaged is not None:
            exchange.switch_id = exchange.engaged.switch_id
            refused = switched_off(exchange.engaged)
        assert refused is not None  # noqa: S101 - every interrupt but these two has its words
        await send_refusal(exchange, codec, refused, answer, encoder=exchange.encoder)

    async def _crashed(
        self, exchange: Exchange, codec: SurfaceCodec, answer: Answer, error: Exception
    ) -> None:
        exchange.error = type(error).__name__
        _log.error("request %s ended in %s at stage %s", exchange.id, exchange.error, exchange.stage.value)
        _log.debug("request %s", exchange.id, exc_info=error)
        refused = Refused(
            Outcome.INTERNAL_ERROR,
            status=500,
            code="internal_error",
            message=f"the gateway failed; nothing unchecked was sent. Reference: {exchange.reference}.",
        )
        await send_refusal(exchange, codec, refused, answer, encoder=exchange.encoder)

    async def _recorded_first(self, exchange: Exchange, recorder: Recorder) -> None:
        """Put the record on disk before the end of the answer leaves; without it, no answer leaves."""
        try:
            await recorder.write_first(record_of(exchange))
        except StanchionError as error:
            exchange.before_end, exchange.error = None, "record_not_written"
            raise Refused(
                Outcome.INTERNAL_ERROR,
                status=503,
                code="record_not_written",
                message="the record of this request could not be written, and there is no answer without.",
                hint="Try again later.",
                retry_after_s=5.0,
            ) from error
        exchange.is_recorded = True

    def _tell_started(self, exchange: Exchange) -> None:
        for observer in exchange.live.observers:
            try:
                observer.started(exchange.facts)
            except Exception:
                self.swallowed_errors += 1

    def _settle(self, exchange: Exchange) -> bool:
        """The one way out: stop the clocks, make the record, tell everybody; whether that was still to do."""
        if exchange.is_settled:
            return False
        exchange.is_settled = True
        record = record_of(exchange)
        recorder = exchange.live.recorder
        if recorder is not None and not exchange.is_recorded:
            recorder.put(record)
        for observer in exchange.live.observers:
            try:
                observer.finished(record)
            except Exception as error:
                self._swallow(exchange, error)
        self._running.discard(exchange)
        self._ended.set()
        parts = exchange.live.parts
        if parts.rollout is not None and exchange.assignment is not None:
            try:
                parts.rollout.observe(
                    exchange.facts, exchange.assignment, exchange.outcome, latency_ms=record.total_ms
                )
            except Exception as error:
                self._swallow(exchange, error)
        if exchange.assignment is not None and exchange.assignment.shadows:
            self.shadows.start(exchange)
        return True

    def _swallow(self, exchange: Exchange, error: Exception) -> None:
        """Count what went wrong after a request was over; its text may hold anything and is not logged."""
        self.swallowed_errors += 1
        _log.error("%s after the end of request %s", type(error).__name__, exchange.id)
        _log.debug("request %s", exchange.id, exc_info=error)


async def _give_back(exchange: Exchange, limits: Limits) -> None:
    """Settle what was reserved, and say what became of the request."""
    reservation = exchange.reservation
    if reservation is not None:
        if exchange.tries:
            await reservation.settle(exchange.usage)
        else:
            await reservation.release()
    await limits.observe(exchange.facts, exchange.outcome)


def record_of(exchange: Exchange) -> ExchangeRecord:
    """Everything that happened to a request, no word of its text."""
    live, feature = exchange.live, exchange.feature
    total_ns = live.clock.monotonic_ns() - exchange.started_ns
    manifest: dict[str, int] = {}
    if feature is not None and exchange.request is not None and exchange.decisions:
        surfaces = asked_surfaces(exchange.request.interaction)
        if exchange.shown is not None:
            surfaces |= answered_surfaces(exchange.shown.message)
        manifest = counts(feature.guard, surfaces, exchange.decisions)
    switches = live.parts.switches
    input_hash, output_hash = content_hashes(exchange) if exchange.facts.span_id else ("", "")
    return ExchangeRecord(
        facts=exchange.facts,
        at=exchange.at,
        outcome=exchange.outcome,
        stage=exchange.stage,
        status=exchange.status,
        reference=exchange.reference,
        decisions=exchange.decisions,
        components=exchange.components,
        is_gated=exchange.is_gated,
        manifest=manifest,
        guarantee=exchange.guarantee,
        guard_state="" if feature is None else feature.guard_state,
        finish_reason=exchange.finish_reason,
        usage=exchange.usage,
        total_ms=total_ns / 1e6,
        guard_ms=exchange.guard_ns / 1e6,
        upstream_ms=exchange.upstream_ns / 1e6,
        first_byte_ms=exchange.first_byte_ns / 1e6 if exchange.first_byte_ns else None,
        tries=tuple(exchange.tries),
        variants={} if exchange.assignment is None else exchange.assignment.variants,
        switch_version=0 if switches is None else switches.version,
        switch_id=exchange.switch_id,
        ungated=exchange.ungated,
        flags="" if live.parts.flags is None else live.parts.flags.version,
        unknown_events=exchange.unknown_events,
        error=exchange.error,
        input_hash=input_hash,
        output_hash=output_hash,
    )


def _watch(scope: Scope, receive: Receive, exchange: Exchange) -> Callable[[None], object]:
    """End the request when its client goes away; what ends the watch.

    Our own server tells of it; of another it is known by a task that waits for it.
    """
    when_gone: Callable[[Callable[[], None] | None], object] | None = scope.get(WHEN_GONE)
    if when_gone is not None:
        when_gone(exchange.client_gone)
        return when_gone
    waiting = asyncio.create_task(_waited(receive, exchange.client_gone))
    return lambda _: waiting.cancel()


async def _waited(receive: Receive, gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


def _split(path: str) -> tuple[str, str]:
    """The feature that a path names (`/features/NAME/v1/...`), empty for none, and the path of the API."""
    if path.startswith("/features/"):
        name, _, rest = path[len("/features/") :].partition("/")
        return name, f"/{rest}"
    return "", path


def _check_media_type(exchange: Exchange) -> None:
    said = exchange.headers.get(b"content-type", b"application/json")
    if said == b"application/json":
        return
    kind, _, parameters = said.partition(b";")
    if kind.strip().lower() != b"application/json":
        raise invalid("not_json", "the body is not declared as application/json.", status=415)
    for parameter in parameters.lower().split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip().strip(b'"') not in (b"utf-8", b"utf8"):
            raise invalid("not_utf8", "the body is declared in another charset than UTF-8.", status=415)


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _is_anthropic(path: str) -> bool:
    return path.startswith(("/anthropic/", "/v1/messages", "/v1/v1/messages"))


_REFUSALS = {
    Interrupt.DEADLINE: Refused(
        Outcome.DEADLINE,
        status=504,
        code="deadline",
        message="the request was not answered within its time.",
        hint="Ask for less, or for a longer deadline.",
    ),
    Interrupt.SLOW_BODY: Refused(
        Outcome.DEADLINE,
        status=408,
        code="body_too_slow",
        message="the body did not come in time.",
    ),
    Interrupt.DRAIN: Refused(
        Outcome.INTERNAL_ERROR,
        status=503,
        code="shutting_down",
        message="the gateway is being stopped.",
        hint="Try again; another one will answer.",
        retry_after_s=1.0,
    ),
}
