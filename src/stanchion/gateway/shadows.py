"""Variants that run beside the real request: asked or checked when it is over, recorded, never shown.

A shadow of a policy decides about what was asked and what the model said. A shadow of a model or a prompt
asks a model once more, which costs as much as a request. Both get a record of their own with
`traffic: shadow` and the reference of the real one, and both arms of the experiment are counted: the real
request as control. Switches hold for shadows too; limits do not, because no caller asked for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from stanchion.core.interaction import Reply
from stanchion.gateway.asking import HandedOver, ask
from stanchion.gateway.enforcement import prepare, put_prompt, question_of
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.extra_parameters import check_extras
from stanchion.gateway.live import variant_name
from stanchion.gateway.manifest import outcome_of
from stanchion.gateway.permits import admit, heed_switches
from stanchion.gateway.ports import ApiSurface, Assignment, ExchangeRecord, Outcome, Refused, Shadow, Stage
from stanchion.gateway.request_ids import begin_request
from stanchion.gateway.rollout_file import CONTROL

MOST_AT_ONCE = 64
_SURFACES = frozenset({ApiSurface.OPENAI_CHAT, ApiSurface.OPENAI_RESPONSES, ApiSurface.ANTHROPIC_MESSAGES})
_BEFORE = frozenset({Stage.DECODE, Stage.ACCESS, Stage.SWITCHES, Stage.LIMITS, Stage.ADMISSION})


class Shadows:
    """The shadows of one process. More than `most` at a time are left out, and counted in `dropped`."""

    def __init__(self, record_of: Callable[[Exchange], ExchangeRecord], *, most: int = MOST_AT_ONCE) -> None:
        self._record_of = record_of
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._tasks)

    def start(self, exchange: Exchange) -> None:
        """Run the shadows of a request that is over, where it came as far as its rules."""
        assignment = exchange.assignment
        if assignment is None or exchange.surface not in _SURFACES or exchange.stage in _BEFORE:
            return
        for shadow in assignment.shadows:
            if len(self._tasks) >= self._most:
                self.dropped += 1
                continue
            task = asyncio.create_task(self._run(exchange, shadow))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange, shadow: Shadow) -> None:
        twin = _twin(exchange, shadow)
        twin.task = asyncio.current_task()
        begin_request(twin.id)
        try:
            async with asyncio.timeout(twin.held_to.deadline_s):
                await _decide(exchange, twin, shadow)
        except Refused as refused:
            twin.outcome, twin.status = refused.outcome, refused.status
        except asyncio.CancelledError:
            if twin.engaged is None:
                raise
            twin.outcome, twin.switch_id = Outcome.SWITCHED_OFF, twin.engaged.switch_id
        except HandedOver:
            twin.outcome = Outcome.UPSTREAM_ERROR
        except TimeoutError:
            twin.outcome = Outcome.DEADLINE
        except Exception as error:  # an edge: a shadow harms nobody
            twin.outcome, twin.error = Outcome.INTERNAL_ERROR, type(error).__name__
        finally:
            twin.unfollow()
            self._told(exchange, twin, shadow)

    def _told(self, exchange: Exchange, twin: Exchange, shadow: Shadow) -> None:
        live, record = twin.live, self._record_of(twin)
        if live.recorder is not None:
            live.recorder.put(record)
        if live.parts.rollout is not None:
            control = Assignment(variants={shadow.experiment: CONTROL})
            real_ms = (exchange.guard_ns + exchange.upstream_ns) / 1e6
            live.parts.rollout.observe(exchange.facts, control, exchange.outcome, latency_ms=real_ms)
            assert twin.assignment is not None  # noqa: S101 - the twin was made with one
            twin_ms = (twin.guard_ns + twin.upstream_ns) / 1e6
            live.parts.rollout.observe(twin.facts, twin.assignment, twin.outcome, latency_ms=twin_ms)


def _twin(exchange: Exchange, shadow: Shadow) -> Exchange:
    """The state of a request like the real one, under the variant."""
    live = exchange.live
    twin = Exchange(
        id=live.ids.new("shadow"),
        surface=exchange.surface,
        live=live,
        headers=exchange.headers,
        started_ns=live.clock.monotonic_ns(),
    )
    twin.at = live.clock.now().isoformat()
    twin.reference = exchange.reference
    twin.caller = exchange.caller
    twin.feature = exchange.feature
    if shadow.policy:
        twin.feature = live.variants[variant_name(exchange.held_to.name, shadow.policy)]
    twin.facts = msgspec.structs.replace(
        exchange.facts, id=twin.id, traffic="shadow", guard_version=twin.held_to.guard_version
    )
    twin.request = exchange.asked
    twin.prompt_digest = exchange.prompt_digest
    twin.assignment = Assignment(variants={shadow.experiment: shadow.variant})
    return twin


async def _decide(exchange: Exchange, twin: Exchange, shadow: Shadow) -> None:
    live = twin.live
    if shadow.prompt:
        if exchange.prompt_digest:  # the prompt of the real request stands first
            interaction = twin.asked.interaction
            kept = msgspec.structs.replace(interaction, messages=interaction.messages[1:])
            twin.request = msgspec.structs.replace(twin.asked, interaction=kept)
        put_prompt(twin, shadow.prompt)
    vendor = twin.surface.value.partition(".")[0]
    route = live.models.find(shadow.model or exchange.facts.model, vendor=vendor)
    twin.facts = msgspec.structs.replace(twin.facts, model=route.name, provider=route.provider.name)
    heed_switches(twin)
    admit(twin, route, twin.asked)
    check_extras(twin.asked, surface=twin.surface.value, provider=route.provider, headers=twin.vendor_headers)
    prepared = await prepare(twin, twin.asked.interaction)
    reply: Reply | None = exchange.said
    if prepared.blocked is None and (shadow.model or shadow.prompt):
        twin.stage = Stage.UPSTREAM
        reply = await ask(twin, route, question_of(twin, route, prepared))
        twin.usage = twin.priced(reply.usage)
    if prepared.blocked is None and reply is not None:
        twin.stage = Stage.OUTPUT
        began_ns = live.clock.monotonic_ns()
        checked = await twin.held_to.guard.afinish(prepared, reply)
        twin.guard_ns += live.clock.monotonic_ns() - began_ns
        assert checked.reply is not None  # noqa: S101 - `afinish` gives one
        twin.decisions, twin.shown = checked.reply.decisions, reply
        twin.finish_reason = checked.reply.finish_reason
        twin.stage = Stage.DONE
    twin.outcome, twin.status = outcome_of(twin.decisions), 200
