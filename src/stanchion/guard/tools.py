"""`@guard.tool`: a tool's function that is only called when policy, schema and checks agree.

In order: the arguments fit the signature, the policy's tool rules allow the call, the arguments pass the
checks of surface `tool_call`, a person approves where that is asked; then the function runs, and its result
passes the checks of surface `tool_result`.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, Literal, Protocol, TypeVar, cast

import msgspec

from stanchion.core.errors import BlockedError, UsageError
from stanchion.core.interaction import ToolCall, ToolDefinition
from stanchion.guard.answers import CheckedCall, CheckedValue

_F = TypeVar("_F", bound=Callable[..., Any])
Denial = Literal["raise", "text"]
Approve = Callable[[ToolCall, CheckedCall], bool]
_session: ContextVar[str] = ContextVar("stanchion_tool_session", default="")
_MAX_COUNTED = 100_000


class CallChecker(Protocol):
    """The part of a guard that a tool needs."""

    def check_tool_call(
        self,
        call: ToolCall,
        *,
        session_id: str = "",
        definition: ToolDefinition | None = None,
        calls_before: int | None = None,
    ) -> CheckedCall:
        """See `Guard.check_tool_call`."""
        ...

    async def acheck_tool_call(
        self,
        call: ToolCall,
        *,
        session_id: str = "",
        definition: ToolDefinition | None = None,
        calls_before: int | None = None,
    ) -> CheckedCall:
        """See `Guard.acheck_tool_call`."""
        ...

    def check_tool_result(self, value: Any, *, session_id: str = "") -> CheckedValue:
        """See `Guard.check_tool_result`."""
        ...

    async def acheck_tool_result(self, value: Any, *, session_id: str = "") -> CheckedValue:
        """See `Guard.acheck_tool_result`."""
        ...


@contextmanager
def tool_session(session_id: str) -> Iterator[None]:
    """Tool calls inside belong to this session: limits on calls count by it, its vault is used."""
    token = _session.set(session_id)
    try:
        yield
    finally:
        _session.reset(token)


class CallCounts:
    """How often each tool was called in each session, in this process; the longest unused are forgotten."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = Lock()

    def before(self, session_id: str, name: str) -> int | None:
        """Calls so far; None without a session."""
        return self._counts.get((session_id, name), 0) if session_id else None

    def add(self, session_id: str, name: str) -> None:
        """One more call."""
        if not session_id:
            return
        with self._lock:
            key = (session_id, name)
            self._counts[key] = self._counts.get(key, 0) + 1
            self._counts.move_to_end(key)
            while len(self._counts) > _MAX_COUNTED:
                self._counts.popitem(last=False)


class ToolGate:
    """Puts functions under one guard."""

    def __init__(self, guard: CallChecker, counts: CallCounts) -> None:
        self._guard = guard
        self._counts = counts

    def guarded(
        self,
        function: _F,
        *,
        name: str = "",
        schema: Mapping[str, Any] | None = None,
        denial: Denial = "raise",
        approve: Approve | None = None,
    ) -> _F:
        """The function under guard, with the same signature; sync stays sync, async stays async.

        `schema` is the JSON schema of the arguments (default: from the signature's annotations). `denial`
        says what a refused call gives: a BlockedError, or a sentence as the tool's answer that a model can
        read. `approve` is asked where the policy wants a person's approval; without it such calls are denied.

        Raises:
            UsageError: for generators, which give results that were never checked as a whole.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"tool {function.__name__!r} is a generator; its results cannot be checked as one.",
                hint="Return a list.",
            )
        tool = _Tool(function, name=name or function.__name__, schema=schema, denial=denial, approve=approve)
        wrapper = self._async_wrapper(tool) if inspect.iscoroutinefunction(function) else self._wrapper(tool)
        return cast(_F, functools.wraps(function)(wrapper))

    def _wrapper(self, tool: _Tool) -> Callable[..., Any]:
        def call_under_guard(*args: Any, **kwargs: Any) -> Any:
            session_id = _session.get()
            call, bound = tool.bind(args, kwargs)
            checked = self._guard.check_tool_call(call, **self._options(tool, session_id))
            if not tool.goes_on(checked):
                return tool.denied(checked)
            self._counts.add(session_id, tool.name)
            used = tool.taken_over(bound, checked)
            result = tool.function(*used.args, **used.kwargs)
            return tool.given(self._guard.check_tool_result(result, session_id=session_id))

        return call_under_guard

    def _async_wrapper(self, tool: _Tool) -> Callable[..., Any]:
        async def call_under_guard(*args: Any, **kwargs: Any) -> Any:
            session_id = _session.get()
            call, bound = tool.bind(args, kwargs)
            checked = await self._guard.acheck_tool_call(call, **self._options(tool, session_id))
            if not tool.goes_on(checked):
                return tool.denied(checked)
            self._counts.add(session_id, tool.name)
            used = tool.taken_over(bound, checked)
            result = await tool.function(*used.args, **used.kwargs)
            return tool.given(await self._guard.acheck_tool_result(result, session_id=session_id))

        return call_under_guard

    def _options(self, tool: _Tool, session_id: str) -> dict[str, Any]:
        return {
            "session_id": session_id,
            "definition": tool.definition,
            "calls_before": self._counts.before(session_id, tool.name),
        }


class _Tool:
    """A function with its signature, and what to do when it may not be called."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        schema: Mapping[str, Any] | None,
        denial: Denial,
        approve: Approve | None,
    ) -> None:
        self.function = function
        self.name = name
        self.signature = inspect.signature(function)
        self.denial = denial
        self.approve = approve
        parameters = dict(schema) if schema is not None else schema_of(function)
        self.definition = ToolDefinition(name=name, parameters=parameters)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ToolCall, inspect.BoundArguments]:
        """The call as the policy sees it. Arguments that do not fit the signature leave it without any."""
        try:
            bound = self.signature.bind(*args, **kwargs)
            arguments: dict[str, Any] | None = msgspec.to_builtins(_flat(bound), str_keys=True)
        except TypeError:
            bound, arguments = self.signature.bind_partial(), None
        return ToolCall(id="", name=self.name, arguments=arguments), bound

    def goes_on(self, checked: CheckedCall) -> bool:
        """Whether the function may run."""
        if checked.allowed:
            return True
        return checked.needs_approval and self.approve is not None and self.approve(checked.call, checked)

    def denied(self, checked: CheckedCall) -> str:
        """The answer of a call that was refused.

        Raises:
            BlockedError: when the tool was made so.
        """
        if self.denial == "raise":
            hint = f"Reference: {checked.reference}."
            raise BlockedError(checked.denial, reference=checked.reference, hint=hint)
        return checked.denial

    def given(self, checked: CheckedValue) -> Any:
        """The result as it may be used.

        Raises:
            BlockedError: when it may not, and the tool was made so.
        """
        if checked.allowed or self.denial == "text":
            return checked.value
        reference = checked.decision.reference
        hint = f"Reference: {reference}."
        raise BlockedError(checked.decision.reason, reference=reference, hint=hint)

    def taken_over(self, bound: inspect.BoundArguments, checked: CheckedCall) -> inspect.BoundArguments:
        """The arguments with what the guard rewrote; those it left alone stay the very objects they were."""
        before, after = msgspec.to_builtins(_flat(bound), str_keys=True), checked.call.arguments or {}
        for name, value in after.items():
            if before.get(name) == value:
                continue
            parameter = self.signature.parameters.get(name)
            if parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = value
            else:
                _set_variable(self.signature, bound, name, value)
        return bound


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON schema of a function's arguments, from its annotations; what has none may be anything."""
    from pydantic import ConfigDict, PydanticSchemaGenerationError, create_model
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    fields: dict[str, Any] = {}
    is_open = False
    hints = _annotations(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            is_open = True
            continue
        kind = hints.get(parameter.name, Any)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            kind = list[kind]  # type: ignore[valid-type]
        is_required = (
            parameter.default is inspect.Parameter.empty
            and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
        )
        fields[parameter.name] = (kind, ... if is_required else None)
    extra: Literal["allow", "forbid"] = "allow" if is_open else "forbid"
    try:
        model = create_model("Arguments", __config__=ConfigDict(extra=extra), **fields)
        schema: dict[str, Any] = model.model_json_schema()
    except (
        PydanticSchemaGenerationError,
        PydanticInvalidForJsonSchema,
        PydanticUserError,
        NameError,
    ) as error:
        raise UsageError(
            f"tool {function.__name__!r}: its annotations give no JSON schema ({type(error).__name__}).",
            hint="Annotate with JSON types, or pass schema=....",
        ) from error
    return schema


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return inspect.get_annotations(function, eval_str=True)
    except NameError as error:
        raise UsageError(
            f"tool {function.__name__!r}: annotation {error.name!r} is not known.",
            hint="Import it where the tool is defined, or pass schema=....",
        ) from error


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments by name; those of `**kwargs` beside the others."""
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            flat.update(value)
        else:
            flat[name] = value
    return flat


def _set_variable(signature: inspect.Signature, bound: inspect.BoundArguments, name: str, value: Any) -> None:
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and name in bound.arguments.get(
            parameter.name, {}
        ):
            bound.arguments[parameter.name] = {**bound.arguments[parameter.name], name: value}
