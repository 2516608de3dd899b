"""A gateway in front of the vendors' APIs of `vendor_upstream`, with and without a policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
from gateway_server import Records, Served, gateway, live, serve
from vendor_upstream import VendorUpstream

from stanchion.core.clock import SystemClock
from stanchion.gateway.building import make_models
from stanchion.gateway.gateway_file import GatewayModel
from stanchion.gateway.live import Parts
from stanchion.gateway.pages import make_pages
from stanchion.guard.pipeline import Guard

Ask = Callable[[Any], Any]


def openai_at(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)


def anthropic_at(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)


def both(urls: tuple[str, str], make: Any, ask: Ask) -> tuple[Any, Any]:
    """What a client gets of the vendor, and through the gateway."""
    with make(urls[0]) as direct, make(urls[1]) as through:
        return ask(direct), ask(through)


@contextmanager
def served_vendors(
    upstream: VendorUpstream,
    guards: dict[str, Guard],
    *,
    parts: Parts | None = None,
    claude: dict[str, Any] | None = None,
    gpt: dict[str, Any] | None = None,
    models: dict[str, Any] | None = None,
    folder: Any = None,
) -> Iterator[tuple[Served, Records]]:
    """The server, made from what a gateway file would say of both providers."""
    file = GatewayModel.model_validate(
        {
            "providers": {
                "oai": {"api": "openai", "base_url": f"{upstream.url}/v1", **(gpt or {})},
                "ant": {"api": "anthropic", "base_url": upstream.url, **(claude or {})},
            },
            "models": models or {},
            "pass_through": {"openai": "oai", "anthropic": "ant"},
            "features": {name: {} for name in guards},
            "default_feature": next(iter(guards)),
        }
    )
    records = Records()
    made = make_models(file, folder=folder, clock=SystemClock())
    application = gateway(live(made, guards, records, parts=parts))
    application.pages.update(make_pages(application))
    with serve(application) as served:
        try:
            yield served, records
        finally:
            asyncio.run_coroutine_threadsafe(made.aclose(), served.loop).result(5)
