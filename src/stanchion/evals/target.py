"""What a suite can be run against, built from its `target:` part.

Guards, gateways, endpoints and models come in as factories, because what plugs the real ones together lies
above this package.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from stanchion.core.codec import digest, digest_bytes, digest_text
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision, Effect, Surface
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.finding import Detector, DetectorInput
from stanchion.core.interaction import FinishReason, Interaction, Message, Reply, Role, assistant
from stanchion.core.origin import Origin
from stanchion.core.target import Target
from stanchion.detectors.views import build_views
from stanchion.evals.results import TargetKind
from stanchion.evals.target_file import (
    AnyTargetModel,
    CallableTargetModel,
    DetectorTargetModel,
    HttpTargetModel,
    RecordingTargetModel,
    ScriptedTargetModel,
)
from stanchion.models.http_app import HttpApp, HttpAppOptions
from stanchion.models.http_client import HttpLimits
from stanchion.models.recording import read_recording
from stanchion.models.retry import RetryPolicy
from stanchion.models.script import read_script
from stanchion.models.scripted import ScriptedModel

TargetFactory = Callable[[Any], Target]
_MAX_CONNECTIONS = 1024  # the pace of a run limits them, and a suite may ask for as many at once
_SURFACES = {
    Origin.USER: Surface.INPUT,
    Origin.RETRIEVED: Surface.RETRIEVED,
    Origin.TOOL_RESULT: Surface.TOOL_RESULT,
    Origin.MODEL: Surface.OUTPUT,
}


class CallableTarget:
    """A Python function as a target; a sync one runs in a thread, so that it cannot stop the others.

    Args:
        function: text to text, or Interaction to Interaction, Reply or text.
        name: how reports call it.
        takes: `text` gives it the last user turn, `interaction` the whole request.
        code: the digest of what the function is made of.
        components: more of what it is made of, where the caller knows.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        name: str = "",
        takes: str = "text",
        code: str = "",
        components: ComponentSet | None = None,
    ) -> None:
        self._function = function
        self._id = name or f"callable:{getattr(function, '__qualname__', type(function).__name__)}"
        self._takes_text = takes == "text"
        self._components = (components or ComponentSet()).merged(ComponentSet(code=code))
        call = getattr(function, "__call__", function)  # noqa: B004 - an object may have an async __call__
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    @property
    def id(self) -> str:
        """The name given, or `callable:` and the function's."""
        return self._id

    @property
    def components(self) -> ComponentSet:
        """The digest of the function's code, where it could be read."""
        return self._components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """What the function returns, as a reply.

        Raises:
            UnavailableError: when it returns something that is no answer, or calls `sys.exit`.
        """
        argument: Any = _last_user(interaction) if self._takes_text else interaction
        try:
            if self._is_async:
                value = await cast(Callable[[Any], Awaitable[Any]], self._function)(argument)
            else:
                value = await asyncio.to_thread(self._function, argument)
        except SystemExit as error:
            raise UnavailableError(
                f"target {self._id}: ended the process (SystemExit) and gave no answer.",
                hint="Return an answer, or raise an error; do not call sys.exit.",
                is_retryable=False,
            ) from error
        return _with_reply(interaction, value, self._id)

    async def aclose(self) -> None:
        """Close the function's own resources, if it has `aclose`."""
        close = getattr(self._function, "aclose", None)
        if close is not None:
            await close()


class DetectorTarget:
    """A detector under test: the reply is its decision on the last user turn, with the findings."""

    def __init__(
        self, detector: Detector, *, threshold: float = 0.5, origin: Origin = Origin.USER, name: str = ""
    ) -> None:
        self._detector = detector
        self._threshold = threshold
        self._origin = origin
        self._id = name or f"detector:{detector.id}"
        made_of = [detector.id, detector.version, threshold, origin.value]
        self._components = ComponentSet(detectors=digest(made_of))

    @property
    def id(self) -> str:
        """The name given, or `detector:` and its id."""
        return self._id

    @property
    def components(self) -> ComponentSet:
        """The detector's version with the threshold."""
        return self._components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """Flagged (`block`) when a finding reaches the threshold, else `allow`."""
        seen = DetectorInput(view_set=build_views(_last_user(interaction)), origin=self._origin)
        findings = tuple(self._detector.detect(seen))
        is_flagged = any(finding.score >= self._threshold for finding in findings)
        decision = Decision(
            effect=Effect.BLOCK if is_flagged else Effect.ALLOW,
            surface=_SURFACES.get(self._origin, Surface.INPUT),
            findings=findings,
            rule_ids=(f"threshold {self._threshold:g}",) if is_flagged else (),
        )
        reply = Reply(
            message=assistant(""),
            model=self._id,
            decisions=(decision,),
            finish_reason=FinishReason.UNKNOWN,
        )
        return msgspec.structs.replace(interaction, reply=reply)

    async def aclose(self) -> None:
        """Nothing to let go of."""


class NoAnswer:
    """Nobody answers: what a guard is put around when the guard alone is tested."""

    id = "no-answer"
    components = ComponentSet()

    async def invoke(self, interaction: Interaction) -> Interaction:
        """A reply without words, marked as none."""
        reply = Reply(message=assistant(""), model=self.id, finish_reason=FinishReason.UNKNOWN)
        return msgspec.structs.replace(interaction, reply=reply)

    async def aclose(self) -> None:
        """Nothing to let go of."""


def build_target(
    model: AnyTargetModel,
    *,
    folder: Path,
    detectors: Callable[..., Any],
    factories: Mapping[str, TargetFactory] | None = None,
) -> Target:
    """The target of a suite.

    Args:
        model: as the file has it.
        folder: where the suite lies; paths of the target start there.
        detectors: `Registry.create`.
        factories: for the kinds `endpoint`, `local` and `guard`.

    Raises:
        UsageError: when it cannot be made; the message tells what is missing.
    """
    match model:
        case HttpTargetModel():
            return http_target(model)
        case CallableTargetModel():
            function, code = load_function(model.function, folder=folder)
            return CallableTarget(function, name=model.name, takes=model.takes, code=code)
        case ScriptedTargetModel():
            return ScriptedModel(read_script({"name": model.name or "suite", **model.script}))
        case RecordingTargetModel():
            return ScriptedModel(recording=read_recording(folder / model.path))
        case DetectorTargetModel():
            detector = detectors(model.detector, **model.options)
            origin = Origin(model.origin)
            return DetectorTarget(detector, threshold=model.threshold, origin=origin, name=model.name)
        case _:
            factory = (factories or {}).get(model.kind)
            if factory is None:
                raise UsageError(f"a target of kind {model.kind!r} cannot be made here.")
            return factory(model)


def http_target(model: HttpTargetModel, *, deadline_s: float = 120.0) -> HttpApp:
    """The application of a suite; a run asks again itself, so this asks once.

    Raises:
        UsageError: for a bad URL, and for a placeholder of the body that nothing fills.
    """
    limits = HttpLimits(
        deadline_s=deadline_s, max_connections=_MAX_CONNECTIONS, max_response_bytes=model.max_bytes
    )
    options = HttpAppOptions(
        body=model.body,
        answer=model.answer,
        calls=model.calls,
        method=model.method,
        limits=limits,
        retry=RetryPolicy(attempts=1),
    )
    return HttpApp(model.url, options=options, headers=model.headers, name=model.name)


def target_kind(model: AnyTargetModel) -> TargetKind:
    """Whether a target's answers are a real one's; scripts and recordings are not."""
    around = getattr(model, "around", None)
    if around is not None:
        return target_kind(around)
    return TargetKind.SCRIPTED if model.kind in ("scripted", "recording") else TargetKind.REAL


def load_function(reference: str, *, folder: Path) -> tuple[Callable[[Any], Any], str]:
    """A function by `package.module:function` or `file.py:function`, and the digest of its file.

    Raises:
        UsageError: when it is not there.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise UsageError(
            f"{reference!r} names no function.", hint="Write `package.module:function` or `file.py:function`."
        )
    module = _module_of_file(folder / place) if place.endswith(".py") else _module(place)
    function: Any = module
    for step in name.split("."):
        function = getattr(function, step, None)
    if not callable(function):
        known = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        raise UsageError(
            f"{place} has no function {name!r}.", hint=f"It has: {', '.join(sorted(known)[:12])}."
        )
    return function, _code_digest(module, name)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"module {name!r} cannot be imported: {error}.",
            hint="Install it, or name a file: `app.py:answer`, beside the suite.",
        ) from error
    except SystemExit as error:
        raise _ended(f"module {name!r}") from error


def _ended(what: str) -> UsageError:
    return UsageError(
        f"{what} cannot be loaded: it ends the process (SystemExit) when it is imported.",
        hint='Put what starts the program under `if __name__ == "__main__":`.',
    )


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file.", hint="Paths start at the suite.")
    name = f"stanchion_target_{digest_text(str(path.resolve()))[-12:]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        del sys.modules[name]
        raise _ended(str(path)) from error
    except Exception as error:
        del sys.modules[name]
        kind = type(error).__name__
        raise UsageError(f"{path} cannot be loaded: {kind}: {error}.") from error
    return module


def _code_digest(module: Any, name: str) -> str:
    file = getattr(module, "__file__", None)
    source = Path(file).read_bytes() if file and Path(file).is_file() else b""
    return digest_bytes(name.encode() + b"\0" + source)


def _last_user(interaction: Interaction) -> str:
    return next((m.text for m in reversed(interaction.messages) if m.role is Role.USER), "")


def _with_reply(interaction: Interaction, value: Any, name: str) -> Interaction:
    match value:
        case Interaction(reply=Reply()):
            return value
        case Reply():
            return msgspec.structs.replace(interaction, reply=value)
        case Message():
            return msgspec.structs.replace(interaction, reply=Reply(message=value, model=name))
        case str():
            return msgspec.structs.replace(interaction, reply=Reply(message=assistant(value), model=name))
        case _:
            raise UnavailableError(
                f"target {name}: returned {type(value).__name__}, which is no answer.",
                hint="Return text, a Reply, or the Interaction with its reply.",
                is_retryable=False,
            )
