"""Any HTTP application as a target: a JSON body made from a template, an answer found by a path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.codec import digest, to_builtins
from stanchion.core.components import ComponentSet
from stanchion.core.errors import DeadlineError, UnavailableError
from stanchion.core.interaction import Interaction, Reply, Role, ToolCall, assistant
from stanchion.evals.target_file import HttpTargetModel
from stanchion.evals.templates import render_all

if TYPE_CHECKING:
    import aiohttp

_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_SHOWN = 200


class HttpTarget:
    """Asks an HTTP application; what comes back is judged, or is an error with the status and the reason.

    Args:
        model: where, what to send, where the answer stands.
        timeout_s: for the whole exchange.
    """

    def __init__(self, model: HttpTargetModel, *, timeout_s: float = 120.0) -> None:
        self._model = model
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        shape = [model.url, model.method, model.body, model.answer, model.calls]
        self._components = ComponentSet(code=digest(shape))

    @property
    def id(self) -> str:
        """The name given, or `http:` and the address without its query."""
        return self._model.name or f"http:{self._model.url.partition('?')[0]}"

    @property
    def components(self) -> ComponentSet:
        """The digest of address and templates; what runs behind the address is not known."""
        return self._components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The answer of the application.

        Raises:
            UnavailableError: no connection, a bad status, a body that is no JSON, or no answer at the path.
            DeadlineError: when time ran out.
        """
        body = render_all(self._model.body, template_values(interaction))
        status, headers, data = await self._exchange(body)
        if status >= 400:
            raise self._bad_status(status, headers)
        value = self._decoded(status, headers, data)
        text = _text_at(value, self._model.answer) if self._model.answer or self._model.calls else value
        if not isinstance(text, str):
            raise self._unusable(f"there is no text at {self._model.answer!r} in the answer")
        calls = _calls_at(value, self._model.calls) if self._model.calls else ()
        reply = Reply(message=assistant(text, *calls), model=self.id)
        return msgspec.structs.replace(interaction, reply=reply)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(self, body: Any) -> tuple[int, dict[str, str], bytes]:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s), trust_env=False
            )
        headers = {name: value.reveal() for name, value in self._model.headers.items()}
        options: dict[str, Any] = {} if self._model.method == "GET" else {"json": body}
        try:
            async with self._session.request(
                self._model.method, self._model.url, headers=headers, allow_redirects=False, **options
            ) as response:
                data = await response.content.read(self._model.max_bytes + 1)
                while len(data) <= self._model.max_bytes and not response.content.at_eof():
                    data += await response.content.read(self._model.max_bytes + 1 - len(data))
                found = {name.lower(): value for name, value in response.headers.items()}
                return response.status, found, data
        except TimeoutError as error:
            raise DeadlineError(f"target {self.id}: no answer within {self._timeout_s:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(
                f"target {self.id}: no connection: {type(error).__name__}.",
                hint="Is the application running, and is the url right?",
            ) from error

    def _bad_status(self, status: int, headers: dict[str, str]) -> UnavailableError:
        after = headers.get("retry-after", "")
        return UnavailableError(
            f"target {self.id}: HTTP status {status}.",
            hint="The application refused the request or failed; its log tells why.",
            status=status,
            retry_after_s=float(after) if after.isdecimal() else None,
            is_retryable=status in _RETRYABLE,
        )

    def _decoded(self, status: int, headers: dict[str, str], data: bytes) -> Any:
        if len(data) > self._model.max_bytes:
            raise self._unusable(f"the answer is longer than the limit of {self._model.max_bytes:,} bytes")
        if 300 <= status < 400:
            raise self._unusable(f"a redirect (HTTP {status}), which is not followed")
        kind = headers.get("content-type", "").partition(";")[0]
        if not (self._model.answer or self._model.calls):
            if kind == "text/html":
                raise self._unusable("the answer is a web page (text/html)")
            return data.decode("utf-8", errors="replace")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._unusable(f"the answer is not JSON but {kind or 'of no named type'}") from None

    def _unusable(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"target {self.id}: {why[:_SHOWN]}.",
            hint="Check `url` and `answer` of the target.",
            is_retryable=False,
        )


def template_values(interaction: Interaction) -> dict[str, Any]:
    """What the body's template may name."""
    messages = interaction.messages
    prompt = next((m.text for m in reversed(messages) if m.role is Role.USER), "")
    return {
        "prompt": prompt,
        "system": "\n".join(m.text for m in messages if m.role is Role.SYSTEM),
        "messages": [{"role": m.role.value, "content": m.text} for m in messages],
        "documents": [{"id": d.id, "text": d.text, "source": d.source} for d in interaction.documents],
        "tools": to_builtins(interaction.tools),
    }


def value_at(value: Any, path: str) -> Any:
    """What stands at a dotted path (`choices.0.message.content`); None when nothing does."""
    here = value
    for step in path.split(".") if path else ():
        if isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        elif isinstance(here, dict) and step in here:
            here = here[step]
        else:
            return None
    return here


def _text_at(value: Any, path: str) -> Any:
    found = value_at(value, path) if path else ""
    return "" if found is None and path == "" else found


def _calls_at(value: Any, path: str) -> tuple[ToolCall, ...]:
    """Tool calls as `{name, arguments}`, with OpenAI's `function` around them or without."""
    found = value_at(value, path)
    calls = []
    for index, item in enumerate(found if isinstance(found, list) else []):
        call = item.get("function", item) if isinstance(item, dict) else {}
        raw = call.get("arguments")
        arguments, text = (raw, None) if isinstance(raw, dict) else _parsed(raw)
        name = str(call.get("name", ""))
        identity = str(item.get("id", f"call_{index}")) if isinstance(item, dict) else f"call_{index}"
        calls.append(ToolCall(id=identity, name=name, arguments=arguments, raw_arguments=text))
    return tuple(calls)


def _parsed(raw: Any) -> tuple[dict[str, Any] | None, str | None]:
    text = raw if isinstance(raw, str) else ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, text
    return (value, None) if isinstance(value, dict) else (None, text)
