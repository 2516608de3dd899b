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
_Given = tuple[tuple[Any, ...], dict[str, Any]]
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

        `self` of a method, and `cls` of a class method, are no arguments of the call: they are neither
        checked nor shown to a model.

        Raises:
            UsageError: for generators, which give results that were never checked as a whole.
        """
        if isinstance(function, classmethod | staticmethod):
            raise UsageError(
                f"tool {function.__name__!r}: the guard stands above {type(function).__name__}.",
                hint=f"Write @{type(function).__name__} above @guard.tool.",
            )
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
            made = tool.bind(args, kwargs)
            checked = self._guard.check_tool_call(made.call, **self._options(tool, session_id))
            if not tool.goes_on(checked):
                return tool.denied(checked, fault=made.fault)
            self._counts.add(session_id, tool.name)
            args, kwargs = tool.taken_over(made, checked, (args, kwargs))
            result = tool.function(*args, **kwargs)
            return tool.given(self._guard.check_tool_result(result, session_id=session_id))

        return call_under_guard

    def _async_wrapper(self, tool: _Tool) -> Callable[..., Any]:
        async def call_under_guard(*args: Any, **kwargs: Any) -> Any:
            session_id = _session.get()
            made = tool.bind(args, kwargs)
            checked = await self._guard.acheck_tool_call(made.call, **self._options(tool, session_id))
            if not tool.goes_on(checked):
                return tool.denied(checked, fault=made.fault)
            self._counts.add(session_id, tool.name)
            args, kwargs = tool.taken_over(made, checked, (args, kwargs))
            result = await tool.function(*args, **kwargs)
            return tool.given(await self._guard.acheck_tool_result(result, session_id=session_id))

        return call_under_guard

    def _options(self, tool: _Tool, session_id: str) -> dict[str, Any]:
        return {
            "session_id": session_id,
            "definition": tool.definition,
            "calls_before": self._counts.before(session_id, tool.name),
        }


class _Made(msgspec.Struct, frozen=True):
    """A call as the policy sees it; `fault` says why it has no arguments, without a value of theirs."""

    call: ToolCall
    bound: inspect.BoundArguments | None
    fault: str = ""


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
        self.receiver = receiver_of(function)
        self.denial = denial
        self.approve = approve
        parameters = dict(schema) if schema is not None else schema_of(function)
        self.definition = ToolDefinition(name=name, parameters=parameters)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Made:
        """The call as the policy sees it. Arguments that do not fit the signature leave it without any."""
        arguments: dict[str, Any] | None = None
        bound: inspect.BoundArguments | None = None
        fault = ""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            fault = f"the arguments do not fit: {str(error)[:120]}"
        if bound is not None:
            try:
                arguments = self._plain(bound)
            except TypeError as error:
                fault = f"an argument is no JSON value: {str(error)[:120]}"
        return _Made(ToolCall(id="", name=self.name, arguments=arguments), bound, fault)

    def _plain(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """The arguments as JSON, without the object that a method belongs to."""
        flat = _flat(bound)
        if self.receiver:
            del flat[self.receiver]
        plain: dict[str, Any] = msgspec.to_builtins(flat, str_keys=True)
        return plain

    def goes_on(self, checked: CheckedCall) -> bool:
        """Whether the function may run."""
        if checked.allowed:
            return True
        return checked.needs_approval and self.approve is not None and self.approve(checked.call, checked)

    def denied(self, checked: CheckedCall, *, fault: str = "") -> str:
        """The answer of a call that was refused; `fault` is the true cause where the call could not be read.

        Raises:
            BlockedError: when the tool was made so.
        """
        words = checked.denial
        if fault and checked.decision.rule_ids[:1] == ("tools.arguments",):
            words = f"Not done: tool {self.name!r}: {fault}. Go on without this call, or correct it. "
            words += f"(Reference: {checked.reference})"
        if self.denial == "raise":
            hint = f"Reference: {checked.reference}."
            raise BlockedError(words, reference=checked.reference, hint=hint)
        return words

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

    def taken_over(self, made: _Made, checked: CheckedCall, given: _Given) -> _Given:
        """The arguments with what the guard rewrote; those it left alone stay the very objects they were.

        A call that could not be read, and was let through by a guard that does not protect, stays as `given`.
        """
        bound, after = made.bound, checked.call.arguments
        if bound is None or made.call.arguments is None or after is None:
            return given
        for name, value in after.items():
            if made.call.arguments.get(name) == value:
                continue
            parameter = self.signature.parameters.get(name)
            if parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = value
            else:
                _set_variable(self.signature, bound, name, value)
        return bound.args, bound.kwargs


def receiver_of(function: Callable[..., Any]) -> str:
    """The parameter that stands for the object or class of a method; empty for a plain function."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not owner or owner.endswith("<locals>") or inspect.ismethod(function):
        return ""
    first = next(iter(inspect.signature(function).parameters), "")
    return first if first in ("self", "cls") else ""


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON schema of a function's arguments, from its annotations; what has none may be anything."""
    from pydantic import ConfigDict, PydanticSchemaGenerationError, create_model
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    fields: dict[str, Any] = {}
    is_open = False
    hints = _annotations(function)
    receiver = receiver_of(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == receiver:
            continue
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
