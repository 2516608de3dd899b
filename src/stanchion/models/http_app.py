"""Any HTTP application as a target: a JSON request made from a template, an answer found by a path."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.codec import digest, to_builtins
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import FinishReason, Interaction, Reply, Role, ToolCall, assistant
from stanchion.models.endpoint import SecretLike
from stanchion.models.events import tool_call
from stanchion.models.http_client import Call, HttpClient, HttpLimits, checked_url, json_body, shown_url
from stanchion.models.http_errors import looks_like_html, web_page_error
from stanchion.models.retry import Deadline, Jitter, Retries, RetryPolicy, Sleep
from stanchion.models.template import fill, placeholders

VARIABLES = ("prompt", "system", "messages", "documents", "tools", "session_id", "model")


class HttpAppOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to send and where the answer stands.

    `body` is any JSON value; its texts may hold `{{ prompt }}` (the last user text), `{{ system }}`,
    `{{ session_id }}` and `{{ model }}`, and a text that is only `{{ messages }}`, `{{ documents }}` or
    `{{ tools }}` stands for the list. `answer` and `calls` are dotted paths into the JSON of the response,
    such as `choices.0.message.content`; with neither, the whole body is the answer. A key that is missing or
    null at the end of `calls` means that no tool was called.
    """

    body: Any = msgspec.field(default_factory=lambda: {"prompt": "{{ prompt }}"})
    answer: str = ""
    calls: str = ""
    method: str = "POST"
    limits: HttpLimits = HttpLimits()
    retry: RetryPolicy = RetryPolicy()


class HttpApp:
    """Asks an application over HTTP; what comes back is its reply, or an error that says why there is none.

    Args:
        url: where to ask.
        options: what to send, where the answer stands, limits.
        headers: sent with each request; values that reveal themselves only here may be secrets.
        name: how reports call it; the default is made from the URL.
        clock: for latency and `Retry-After` dates.
        sleep: waits between retries.
        jitter: draws the waits.

    Raises:
        UsageError: for a bad URL, and for a placeholder that nothing fills.
    """

    def __init__(
        self,
        url: str,
        *,
        options: HttpAppOptions | None = None,
        headers: Mapping[str, str | SecretLike] | None = None,
        name: str = "",
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        jitter: Jitter | None = None,
    ) -> None:
        self._url = checked_url(url, what="the URL of the application")
        self._options = options or HttpAppOptions()
        self._headers = dict(headers or {})
        self._name = name or f"http:{shown_url(self._url)}"
        self._clock = clock or SystemClock()
        self._http = HttpClient(self._options.limits, clock=self._clock)
        self._retries = Retries(self._options.retry, sleep=sleep, jitter=jitter)
        for used in placeholders(self._options.body):
            if used not in VARIABLES:
                fill("{{ " + used + " }}", dict.fromkeys(VARIABLES), where=f"request body of {self._name}")
        shape = [shown_url(self._url), self._options.method, self._options.body]
        self._components = ComponentSet(code=digest([*shape, self._options.answer, self._options.calls]))

    @property
    def id(self) -> str:
        """The name, or `http:` and the address without its query."""
        return self._name

    @property
    def components(self) -> ComponentSet:
        """The digest of address and template: what runs behind the address is not known."""
        return self._components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The request with the application's answer.

        Raises:
            UnavailableError: no connection, a bad status, a web page, no JSON, or no answer at the path.
            DeadlineError: when time ran out.
        """
        call = self._call(interaction)
        began = self._clock.monotonic_ns()
        deadline = Deadline(self._options.limits.deadline_s, what=call.what)
        if self._options.answer or self._options.calls:
            value = await self._retries.run(lambda: self._http.fetch_json(call), deadline)
            reply = self._reply(value, call.what)
        else:
            headers, raw = await self._retries.run(lambda: self._http.fetch(call), deadline)
            if looks_like_html(headers, raw):
                raise web_page_error(call.what)
            reply = Reply(message=assistant(raw.decode("utf-8", errors="replace")), model=self.id)
        latency_ms = (self._clock.monotonic_ns() - began) / 1e6
        return msgspec.structs.replace(
            interaction, reply=msgspec.structs.replace(reply, latency_ms=latency_ms)
        )

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._http.aclose()

    def _call(self, interaction: Interaction) -> Call:
        has_body = self._options.method != "GET"
        body = fill(self._options.body, variables_of(interaction), where=f"request body of {self.id}")
        headers = {"content-type": "application/json", "accept": "application/json"}
        headers["accept-encoding"] = "identity"
        headers |= {k: v if isinstance(v, str) else v.reveal() for k, v in self._headers.items()}
        return Call(
            what=f"application {self.id}",
            url=self._url,
            headers=headers,
            method=self._options.method,
            body=json_body(body) if has_body else None,
        )

    def _reply(self, value: Any, what: str) -> Reply:
        calls: tuple[ToolCall, ...] = ()
        text: Any = ""
        try:
            if self._options.answer:
                text = value_at(value, self._options.answer)
            if self._options.calls:
                calls = _calls_at(value, self._options.calls)
        except UsageError as error:
            raise UnavailableError(f"{what}: {error.message}", hint=error.hint, is_retryable=False) from error
        if text is None and calls:
            text = ""
        if not isinstance(text, str):
            found = type(text).__name__
            raise UnavailableError(
                f"{what}: there is no text at {self._options.answer!r} of the answer, but {found}.",
                hint="Check the path of the answer.",
                is_retryable=False,
            )
        reason = FinishReason.TOOL_CALLS if calls else FinishReason.UNKNOWN
        return Reply(message=assistant(text, *calls), finish_reason=reason, model=self.id)


def variables_of(interaction: Interaction) -> dict[str, Any]:
    """What a request template may name."""
    messages = interaction.messages
    return {
        "prompt": next((m.text for m in reversed(messages) if m.role is Role.USER), ""),
        "system": "\n".join(m.text for m in messages if m.role is Role.SYSTEM),
        "messages": [{"role": m.role.value, "content": m.text} for m in messages],
        "documents": [{"id": d.id, "text": d.text, "source": d.source} for d in interaction.documents],
        "tools": to_builtins(interaction.tools),
        "session_id": interaction.session_id,
        "model": interaction.model,
    }


def value_at(value: Any, path: str) -> Any:
    """What stands at a dotted path: keys of objects and, from 0, positions in lists.

    Raises:
        UsageError: at the first step that leads nowhere, naming it and what was there instead.
    """
    here = value
    steps = path.split(".")
    for number, step in enumerate(steps):
        if isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        elif isinstance(here, dict) and step in here:
            here = here[step]
        else:
            where = ".".join(steps[:number]) or "the top"
            found = f"a list of {len(here)}" if isinstance(here, list) else type(here).__name__
            raise UsageError(
                f"the path {path!r} leads nowhere: no {step!r} at {where} ({found}).",
                hint="Check the path against an answer of the application.",
            )
    return here


def _calls_at(value: Any, path: str) -> tuple[ToolCall, ...]:
    """Tool calls as `{name, arguments}`, with OpenAI's `function` around them or without."""
    parent, _, last = path.rpartition(".")
    holder = value_at(value, parent) if parent else value
    if isinstance(holder, dict) and holder.get(last) is None:
        return ()
    return _calls(value_at(holder, last))


def _calls(value: Any) -> tuple[ToolCall, ...]:
    if not isinstance(value, list):
        raise UsageError("the tool calls of the answer are no list.", hint="Check the path `calls`.")
    return tuple(_call(item, number) for number, item in enumerate(value))


def _call(item: Any, number: int) -> ToolCall:
    match item:
        case {"function": {"name": str(name), **rest}} | {"name": str(name), **rest}:
            call_id = item.get("id")
            arguments = rest.get("arguments", {})
        case _:
            raise UsageError(f"tool call {number} of the answer has no name.")
    identity = call_id if isinstance(call_id, str) else f"call_{number}"
    if isinstance(arguments, dict):
        return ToolCall(id=identity, name=name, arguments=arguments)
    return tool_call(id=identity, name=name, raw_arguments=str(arguments))
