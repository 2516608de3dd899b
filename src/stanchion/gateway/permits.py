"""Whether a model may answer a request: switches, the key's scope, and the gate of the component set.

Every model that is asked passes here, the first of a chain and each of its fallbacks: what is forbidden by
one name is not reached by another.
"""

from __future__ import annotations

import msgspec

from stanchion.core.codec import digest
from stanchion.core.components import ComponentSet
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.extra_parameters import check_extras
from stanchion.gateway.ports import ApiSurface, Engaged, Outcome, Refused, RequestFacts, Stage
from stanchion.gateway.upstream import Route
from stanchion.models.wire import Request


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is known by while one route answers it."""

    facts: RequestFacts
    components: ComponentSet
    is_gated: bool | None
    stage: Stage


def watch_switches(exchange: Exchange) -> None:
    """End the request when a switch is engaged that matches what is known of it now."""
    switches = exchange.live.parts.switches
    if switches is None or exchange.facts.surface is ApiSurface.FEEDBACK:
        return  # users report what went wrong while it is switched off, too
    if exchange.follow is None:
        exchange.follow = switches.follow(exchange.facts, exchange.switched_off)
    else:
        exchange.follow.move(exchange.facts)


def heed_switches(exchange: Exchange) -> None:
    """Stop a request that a switch forbids by what is known of it now, and end it when one does later.

    The watch comes first, so that no switch falls between the look and the watch. Whoever learns more of a
    request (its route, prompt, policy, a fallback) calls this again.

    Raises:
        Refused: `switched_off` (503, not to be tried again).
    """
    exchange.stage = Stage.SWITCHES
    switches = exchange.live.parts.switches
    if switches is None:
        return
    watch_switches(exchange)
    engaged = switches.find(exchange.facts)
    if engaged is not None:
        exchange.unfollow()  # it is refused here, and not interrupted as well
        exchange.switch_id = engaged.switch_id
        raise switched_off(engaged)


def switched_off(engaged: Engaged) -> Refused:
    """The refusal of what a switch forbids."""
    return Refused(
        Outcome.SWITCHED_OFF,
        status=503,
        code="switched_off",
        message=f"this was switched off by its operator ({engaged.level}).",
        hint="It will not help to try again at once.",
    )


def check_scope(exchange: Exchange, model: str) -> None:
    """Stop a key that may not use a model, by the name in the gateway file.

    Raises:
        Refused: `denied` (403).
    """
    allowed = exchange.caller.models
    if allowed and model not in allowed:
        raise Refused(
            Outcome.DENIED,
            status=403,
            code="model_not_allowed",
            message="this key may not use this model.",
            hint="Ask for a key that may.",
        )


def admit(exchange: Exchange, route: Route, request: Request) -> None:
    """Note the component set, and ask whether it was gated.

    Raises:
        Refused: `not_admitted` (403).
    """
    feature, interaction = exchange.held_to, request.interaction
    exchange.stage = Stage.ADMISSION
    exchange.components = ComponentSet(
        model=route.digest,
        prompt=exchange.prompt_digest,
        policy=feature.components.policy,
        detectors=feature.components.detectors,
        tools=digest([msgspec.to_builtins(tool) for tool in interaction.tools]) if interaction.tools else "",
    )
    admission = exchange.live.parts.admission
    if admission is None:
        return
    said = admission.check(exchange.facts, exchange.components)
    exchange.is_gated = said.is_gated
    exchange.ungated = "" if said.is_gated else said.action
    if said.action == "block":
        raise Refused(
            Outcome.NOT_ADMITTED,
            status=403,
            code="not_admitted",
            message="this combination of model, prompt, policy and tools has not passed its gate.",
            hint="Gate it, or use one that was gated.",
        )


def standing_of(exchange: Exchange) -> Standing:
    """How a request stands, for `stand_again`."""
    return Standing(
        facts=exchange.facts,
        components=exchange.components,
        is_gated=exchange.is_gated,
        stage=exchange.stage,
    )


def stand_again(exchange: Exchange, before: Standing) -> None:
    """Take back a route that did not take over; the request is watched by what it was before.

    Raises:
        Refused: `switched_off`, when it may not go on as what it was either.
    """
    exchange.facts, exchange.components = before.facts, before.components
    exchange.is_gated, exchange.switch_id = before.is_gated, ""
    heed_switches(exchange)
    exchange.stage = before.stage


def take_over(exchange: Exchange, route: Route) -> None:
    """Let a fallback answer in the place of the model that did not: the request is now one to this route.

    Raises:
        Refused: when a switch, the key's scope, the gate or a parameter stands in its way.
    """
    stage = exchange.stage
    exchange.facts = msgspec.structs.replace(exchange.facts, model=route.name, provider=route.provider.name)
    check_scope(exchange, route.name)
    heed_switches(exchange)
    admit(exchange, route, exchange.asked)
    check_extras(
        exchange.asked,
        surface=exchange.surface.value,
        provider=route.provider,
        headers=exchange.vendor_headers,
    )
    exchange.stage = stage
