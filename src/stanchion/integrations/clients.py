"""`guarded(client, guard)`: the `openai` or `anthropic` client that you have, with a guard in front of it.

client = guarded(OpenAI(), Guard.load())

The result is a client of the same class; everything it gives has the SDK's own types. A refused request is
answered in the API's shape (`finish_reason: content_filter`, `stop_reason: refusal`) and never sent.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection
from types import ModuleType
from typing import TypeVar

from stanchion.core.errors import UsageError
from stanchion.guard.pipeline import Guard
from stanchion.integrations.http_transport import Guarding, transports
from stanchion.integrations.recording import Recorder, Recording

C = TypeVar("C")
_VENDORS = ("openai", "anthropic")
_NOWHERE = "ws://127.0.0.1:0/no-guard-reads-web-sockets"


def guarded(
    client: C,
    guard: Guard,
    *,
    session_id: str | Callable[[], str] = "",
    on_decision: Recorder | None = None,
    unguarded_paths: Collection[str] = (),
) -> C:
    """A copy of a vendor's client under guard; closing it closes the original's connections.

    Args:
        client: an `OpenAI`, `AsyncOpenAI`, `Anthropic` or `AsyncAnthropic`, or a subclass of one.
        guard: decides.
        session_id: of the conversation, or what tells it at each request: with one, values that were taken
            out of one turn come back in the next.
        on_decision: hears of every decision (default: the log).
        unguarded_paths: ends of paths that may be called though no guard reads them, such as `/files`.

    Raises:
        UsageError: for anything that is no such client.
    """
    vendor = _vendor_of(client)
    inner = getattr(client, "_client", None)
    copy = getattr(client, "copy", None)
    if not vendor or inner is None or copy is None:
        raise UsageError(
            f"{type(client).__name__} is no client of `openai` or `anthropic`.",
            hint="Pass OpenAI(), AsyncOpenAI(), Anthropic() or AsyncAnthropic().",
        )
    module, is_async = _http_module(inner)
    guarding = Guarding(
        guard=guard,
        vendor=vendor,
        recording=Recording(f"{vendor} client", on_decision),
        session_id=session_id if callable(session_id) else lambda: session_id,
        unguarded_paths=tuple(unguarded_paths),
    )
    transport = transports(module)[is_async](inner, guarding)
    make = module.AsyncClient if is_async else module.Client
    http_client = make(transport=transport, timeout=inner.timeout, trust_env=False)
    options = {"http_client": http_client}
    if "websocket_base_url" in inspect.signature(copy).parameters:
        options["websocket_base_url"] = _NOWHERE  # web sockets would go around the guard
    made: C = copy(**options)
    return made


def _vendor_of(client: object) -> str:
    for kind in type(client).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in _VENDORS:
            return root
    return ""


def _http_module(inner: object) -> tuple[ModuleType, bool]:
    """The HTTP library that a client is built on, and whether the client is asynchronous."""
    for kind in type(inner).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("httpx", "httpx2") and kind.__name__ in ("Client", "AsyncClient"):
            return importlib.import_module(root), kind.__name__ == "AsyncClient"
    raise UsageError(
        f"the client sends with {type(inner).__name__}, which no guard can be put in front of.",
        hint="Use the SDK's own HTTP client, or a subclass of httpx's.",
    )
