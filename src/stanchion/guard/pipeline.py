"""`Guard`: one policy with its detectors, ready to check texts and exchanges, from sync and async code.

guard = Guard.load("policy.yaml")      # or Guard.load() for the packaged default
checked = guard.check("some text")
checked.allowed, checked.text, checked.decision
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar, overload

import msgspec

from stanchion.core.clock import Clock, Ids, SortableIds, SystemClock
from stanchion.core.codec import digest
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision, Effect, Mode, Surface
from stanchion.core.errors import UsageError
from stanchion.core.finding import ViewSet
from stanchion.core.interaction import Interaction, Message, Reply, ToolCall, ToolDefinition
from stanchion.core.origin import Origin
from stanchion.core.target import Target
from stanchion.guard.answers import Checked, CheckedCall, CheckedInteraction, CheckedValue, GuardState
from stanchion.guard.asked import SPEAKER_OF, origin_of, surface_of, text_of
from stanchion.guard.checks import Check, CheckRunner
from stanchion.guard.examine import TAKEN_OUT, Examiner, Subject
from stanchion.guard.exchange import Exchange, PreparedInteraction, is_stop
from stanchion.guard.fields import TextField
from stanchion.guard.framing import FramedChecks
from stanchion.guard.made_detectors import make_detectors
from stanchion.guard.media import TextExtractor, offered_extractors
from stanchion.guard.packs import with_packs
from stanchion.guard.passing_answer import PassingAnswer
from stanchion.guard.plan import Plan, complete_plan, silent_rules
from stanchion.guard.policy import LoadedPolicy, Policy, packaged_policy, read_policy
from stanchion.guard.policy_model import Redaction
from stanchion.guard.redaction import Redactor
from stanchion.guard.seen_texts import SeenTexts
from stanchion.guard.streaming import StreamGuard
from stanchion.guard.target import GuardedTarget
from stanchion.guard.tool_exchange import ToolExchange
from stanchion.guard.tools import Approve, CallCounts, Denial, ToolGate
from stanchion.guard.vault import VaultKeeper, stretched_key
from stanchion.guard.view_builders import readings_for
from stanchion.guard.workers import AsyncDoor, Door, SyncDoor, WorkerPool, run

_log = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])
_NOTHING = Redaction()
_NO_PARAMETERS: Mapping[str, Any] = {}


class Guard:
    """Checks what goes to a model and what comes back. Thread-safe; make one and keep it."""

    def __init__(
        self,
        policy: Policy | EllipsisType | None = ...,
        detectors: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        key: bytes | None = None,
        build_views: Callable[[str], ViewSet] | None = None,
        pool: WorkerPool | None = None,
        extractors: Sequence[TextExtractor] | None = None,
        successor_of: Guard | None = None,
        prepare: bool = True,
        seen_texts: SeenTexts | None = None,
    ) -> None:
        """`successor_of` is a guard whose vaults, key and counted calls this one goes on with.

        `seen_texts` remembers what was found in texts that go to a model; it must be this guard's own.
        `extractors` read the text of files where the policy says so (default: those installed).
        `detectors` holds a Detector or AsyncDetector for every detector that the policy enables.

        `key` (32 bytes) makes hashes and saved vaults survive a restart; without it a random one is used.
        Without a policy the guard is UNPROTECTED; prefer `Guard.unprotected()`, which says so.
        """
        if not isinstance(policy, Policy | None) or detectors is None:
            raise UsageError(
                "Guard(...) takes a policy and the detectors it enables.",
                hint="Use Guard.load(), which makes both; Guard.load('policy.yaml') for your own policy.",
            )
        self._clock = clock or SystemClock()
        self._ids = ids or SortableIds(self._clock)
        self._policy = policy
        key = key or (secrets.token_bytes(32) if successor_of is None else successor_of._key)
        self._key: bytes = key
        settings = policy.redaction if policy is not None else _NOTHING
        keeper = VaultKeeper(ttl_s=settings.vault_ttl_s, clock=self._clock, master_key=key)
        self._keeper: VaultKeeper = keeper if successor_of is None else successor_of._keeper
        self._counts: CallCounts = CallCounts() if successor_of is None else successor_of._counts
        self.seen_texts = SeenTexts() if seen_texts is None else seen_texts
        self._silent_rules: tuple[str, ...] = ()
        self._plan: Plan | None = None
        self._exchange: Exchange | None = None
        if policy is None:
            _log.warning("UNPROTECTED: this guard has no policy, so nothing is checked.")
            return
        self._plan = complete_plan(policy, detectors, prepare=prepare)
        self._silent_rules = silent_rules(policy, detectors)
        readings = readings_for(policy, build_views)
        runner = CheckRunner(readings.whole, pool=pool)
        checks = FramedChecks(self._plan, runner, readings, seen=self.seen_texts)
        self._exchange = Exchange(
            policy,
            Examiner(policy, self._plan, checks, clock=self._clock, ids=self._ids),
            redactor=Redactor(settings, key=key),
            keeper=self._keeper,
            marking_key=key,
            extractors=offered_extractors() if extractors is None else extractors,
        )

    @classmethod
    def load(
        cls,
        policy: Policy | Path | str = "default",
        *,
        env: Mapping[str, str] | None = None,
        registry: Any = None,
        clock: Clock | None = None,
        prepare: bool = True,
        successor_of: Guard | None = None,
        seen_texts: SeenTexts | None = None,
    ) -> Guard:
        """A guard from a policy file (`.yaml`), a packaged policy's name, or a policy.

        `env` is what `${env:NAME}` in the file reads; `registry` makes the detectors (default: the installed
        ones). Models are loaded now, not within a check's deadline; `prepare=False` is for guards that only
        describe.

        Raises:
            FilesError: when the policy has problems; there is no fallback to an unguarded state.
        """
        from stanchion.detectors.registry import Registry

        registry = registry or Registry()
        folder: Path | None = None
        if isinstance(policy, Policy):
            read = LoadedPolicy(policy=policy)
        elif isinstance(policy, str) and not policy.endswith((".yaml", ".yml")):
            read = LoadedPolicy(policy=packaged_policy(policy, detectors=registry.ids(), clock=clock))
        else:
            read = read_policy(policy, env=env, detectors=registry.ids(), clock=clock, registry=registry)
            folder = Path(policy).parent
        effective = with_packs(read.policy, registry)
        detectors = make_detectors(effective, registry, folder=folder)
        key = None if read.key is None else stretched_key(read.key.reveal())
        more: dict[str, Any] = {"prepare": prepare, "successor_of": successor_of, "seen_texts": seen_texts}
        return cls(effective, detectors, clock=clock, key=key, **more)

    @classmethod
    def unprotected(cls) -> Guard:
        """A guard that checks nothing, and says so in its state, in every decision and in the log."""
        return cls(None, {})

    @property
    def policy(self) -> Policy | None:
        """The policy; None when there is none."""
        return self._policy

    @property
    def state(self) -> GuardState:
        """Whether decisions are acted on, only recorded, or not made at all."""
        if self._policy is None:
            return GuardState.UNPROTECTED
        return GuardState.OBSERVING if self._policy.mode is Mode.SHADOW else GuardState.PROTECTING

    @property
    def components(self) -> ComponentSet:
        """The digests of the policy and of its detectors' versions; empty when unprotected."""
        if self._policy is None or self._plan is None:
            return ComponentSet()
        versions = {
            check.id: str(check.detector.version) for surface in Surface for check in self._plan.on(surface)
        }
        return ComponentSet(policy=self._policy.digest, detectors=digest(versions))

    @property
    def vaults(self) -> VaultKeeper:
        """The vaults of the sessions in progress."""
        return self._keeper

    @property
    def unscanned(self) -> tuple[Surface, ...]:
        """The surfaces on which no check runs."""
        return tuple(Surface) if self._plan is None else self._plan.unscanned

    @property
    def idle_detectors(self) -> tuple[str, ...]:
        """The enabled detectors that run on no surface."""
        return () if self._plan is None else self._plan.idle

    @property
    def silent_rules(self) -> tuple[str, ...]:
        """The rules that can never apply, because no enabled detector reports what they speak of."""
        return self._silent_rules

    def prepare_answers(self) -> None:
        """Compile in the background what the first answer in pieces would wait for: about half a second."""
        if self._exchange is not None:
            self._exchange.examiner.prepare_streams()

    def checks(self, surface: Surface | str) -> tuple[Check, ...]:
        """The checks of a surface, in the order in which they run."""
        return () if self._plan is None else self._plan.on(surface_of(surface))

    def check(self, text: str, **options: Any) -> Checked:
        """The synchronous twin of `acheck`, with the same options; safe inside a running event loop."""
        return run(self._check(SyncDoor(), text, **options))

    async def acheck(
        self,
        text: str,
        *,
        surface: Surface | str = Surface.INPUT,
        origin: Origin | str | None = None,
        context: Mapping[str, tuple[str, ...]] | None = None,
        session_id: str = "",
        locale: str = "",
    ) -> Checked:
        """Check one text. `origin` follows from the surface unless it is given."""
        return await self._check(
            AsyncDoor(),
            text,
            surface=surface,
            origin=origin,
            context=context,
            session_id=session_id,
            locale=locale,
        )

    def check_interaction(
        self, interaction: Interaction, *, context: Mapping[str, tuple[str, ...]] | None = None
    ) -> CheckedInteraction:
        """The synchronous twin of `acheck_interaction`."""
        return run(self._check_interaction(SyncDoor(), interaction, context or {}))

    async def acheck_interaction(
        self, interaction: Interaction, *, context: Mapping[str, tuple[str, ...]] | None = None
    ) -> CheckedInteraction:
        """Check everything in an exchange, and its reply if there is one.

        System prompt, documents and question reach the detectors as context by themselves; `context` adds to
        that, such as `canaries`.
        """
        return await self._check_interaction(AsyncDoor(), interaction, context or {})

    def prepare(
        self, interaction: Interaction, *, context: Mapping[str, tuple[str, ...]] | None = None
    ) -> PreparedInteraction:
        """The synchronous twin of `aprepare`."""
        return run(self._prepare(SyncDoor(), interaction, context or {}))

    async def aprepare(
        self,
        interaction: Interaction,
        *,
        context: Mapping[str, tuple[str, ...]] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> PreparedInteraction:
        """Check a request and make what may be sent to the model.

        `parameters` are what the request says beside the interaction, as JSON; what may be sent of them is in
        the `parameters` of the answer.
        """
        return await self._prepare(AsyncDoor(), interaction, context or {}, parameters or {})

    def finish(
        self,
        prepared: PreparedInteraction,
        reply: Reply,
        *,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Interaction:
        """The synchronous twin of `afinish`."""
        return run(self._finish(SyncDoor(), prepared, reply, context or {}))

    async def afinish(
        self,
        prepared: PreparedInteraction,
        reply: Reply,
        *,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Interaction:
        """The original interaction with the checked reply; a reply to a blocked request is not looked at."""
        return await self._finish(AsyncDoor(), prepared, reply, context or {})

    async def aredacted(self, prepared: PreparedInteraction, reply: Reply) -> Message | None:
        """What a person may release of a reply that waits for one; see `Exchange.redacted`."""
        if self._exchange is None:
            return None
        return await self._exchange.redacted(AsyncDoor(), prepared, reply)

    def stream(
        self,
        prepared: PreparedInteraction,
        *,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> StreamGuard:
        """A guard for the events that answer a prepared request."""
        if self._exchange is None or self._policy is None or prepared.blocked is not None:
            finish = partial(self.afinish, prepared, context=context)
            return StreamGuard(finish, refused=prepared.blocked)
        return StreamGuard(PassingAnswer(self._policy, self._exchange, prepared, context or {}))

    def wrap(self, target: Target) -> GuardedTarget:
        """The target under guard: inputs checked, then asked, then its reply checked."""
        return GuardedTarget(self, target)

    def check_tool_call(
        self,
        call: ToolCall,
        *,
        session_id: str = "",
        definition: ToolDefinition | None = None,
        calls_before: int | None = None,
    ) -> CheckedCall:
        """The synchronous twin of `acheck_tool_call`."""
        work = self._check_call(
            SyncDoor(), call, session_id=session_id, definition=definition, calls_before=calls_before
        )
        return run(work)

    async def acheck_tool_call(
        self,
        call: ToolCall,
        *,
        session_id: str = "",
        definition: ToolDefinition | None = None,
        calls_before: int | None = None,
    ) -> CheckedCall:
        """Decide about a tool call: tool rules, its schema (`definition`), the checks of its arguments."""
        return await self._check_call(
            AsyncDoor(), call, session_id=session_id, definition=definition, calls_before=calls_before
        )

    def check_tool_result(self, value: Any, *, session_id: str = "") -> CheckedValue:
        """The synchronous twin of `acheck_tool_result`."""
        return run(self._check_result(SyncDoor(), value, session_id))

    async def acheck_tool_result(self, value: Any, *, session_id: str = "") -> CheckedValue:
        """Check a tool's result, a text or any JSON value, before a model reads it."""
        return await self._check_result(AsyncDoor(), value, session_id)

    @overload
    def tool(self, function: _F) -> _F: ...

    @overload
    def tool(
        self,
        *,
        name: str = ...,
        schema: Mapping[str, Any] | None = ...,
        denial: Denial = ...,
        approve: Approve | None = ...,
    ) -> Callable[[_F], _F]: ...

    def tool(self, function: Any = None, **options: Any) -> Any:
        """A tool's function under guard: `@guard.tool`, or `@guard.tool(denial="text")`.

        The options are those of `tools.ToolGate.guarded`.
        """
        gate = ToolGate(self, self._counts)
        if function is not None:
            return gate.guarded(function, **options)
        return lambda decorated: gate.guarded(decorated, **options)

    async def _check(
        self,
        door: Door,
        text: str,
        *,
        surface: Surface | str = Surface.INPUT,
        origin: Origin | str | None = None,
        context: Mapping[str, tuple[str, ...]] | None = None,
        session_id: str = "",
        locale: str = "",
    ) -> Checked:
        text, place = text_of(text), surface_of(surface)
        spoken_by = SPEAKER_OF[place] if origin is None else origin_of(origin)
        vault = self._keeper.open(session_id)
        if self._exchange is None:
            return Checked(decision=self._unprotected(place), text=text, allowed=True, vault=vault)
        field = TextField(field="text", surface=place, origin=spoken_by, text=text)
        subject = Subject(context=context or {}, session_id=session_id, locale=locale)
        outcomes = await self._exchange.examine(door, [field], subject)
        outcome = outcomes[place]
        decision = outcome.decision
        if is_stop(decision):
            shown = (
                self._exchange.notice(outcome, subject)
                if place in TAKEN_OUT
                else self._exchange.completion(outcome, subject)
            )
            return Checked(decision=decision, text=shown, allowed=False, vault=vault)
        texts = self._exchange.rewrites(outcomes, vault, subject)
        return Checked(
            decision=decision,
            text=texts.get(field.field, text),
            allowed=decision.enforced_effect is not Effect.REPLACE,
            vault=vault,
        )

    async def _check_call(
        self,
        door: Door,
        call: ToolCall,
        *,
        session_id: str,
        definition: ToolDefinition | None,
        calls_before: int | None,
    ) -> CheckedCall:
        if self._exchange is None or self._policy is None:
            return CheckedCall(decision=self._unprotected(Surface.TOOL_CALL), call=call, allowed=True)
        return await ToolExchange(self._policy, self._exchange).call(
            door,
            call,
            vault=self._keeper.open(session_id),
            subject=Subject(session_id=session_id),
            definition=definition,
            calls_before=calls_before,
        )

    async def _check_result(self, door: Door, value: Any, session_id: str) -> CheckedValue:
        if self._exchange is None or self._policy is None:
            return CheckedValue(decision=self._unprotected(Surface.TOOL_RESULT), value=value, allowed=True)
        return await ToolExchange(self._policy, self._exchange).result(
            door, value, vault=self._keeper.open(session_id), subject=Subject(session_id=session_id)
        )

    async def _check_interaction(
        self, door: Door, interaction: Interaction, context: Mapping[str, tuple[str, ...]]
    ) -> CheckedInteraction:
        prepared = await self._prepare(door, interaction, context)
        if prepared.blocked is not None:
            answered = msgspec.structs.replace(interaction, reply=prepared.blocked)
            return CheckedInteraction(interaction=answered, decisions=prepared.decisions, allowed=False)
        if interaction.reply is None:
            return CheckedInteraction(
                interaction=prepared.interaction, decisions=prepared.decisions, allowed=True
            )
        finished = await self._finish(door, prepared, interaction.reply, context)
        decisions = finished.reply.decisions if finished.reply is not None else ()
        return CheckedInteraction(
            interaction=finished,
            decisions=decisions,
            allowed=not any(is_stop(decision) for decision in decisions),
        )

    async def _prepare(
        self,
        door: Door,
        interaction: Interaction,
        context: Mapping[str, tuple[str, ...]],
        parameters: Mapping[str, Any] = _NO_PARAMETERS,
    ) -> PreparedInteraction:
        if self._exchange is not None:
            return await self._exchange.prepare(door, interaction, context, parameters)
        return PreparedInteraction(
            original=interaction,
            interaction=interaction,
            decisions=(self._unprotected(Surface.INPUT),),
            blocked=None,
            vault=self._keeper.open(interaction.session_id),
            parameters=parameters,
        )

    async def _finish(
        self,
        door: Door,
        prepared: PreparedInteraction,
        reply: Reply,
        context: Mapping[str, tuple[str, ...]],
    ) -> Interaction:
        if prepared.blocked is not None:
            return msgspec.structs.replace(prepared.original, reply=prepared.blocked)
        if self._exchange is not None:
            return await self._exchange.finish(door, prepared, reply, context)
        decisions = (*prepared.decisions, *reply.decisions, self._unprotected(Surface.OUTPUT))
        reply = msgspec.structs.replace(reply, decisions=decisions)
        return msgspec.structs.replace(prepared.original, reply=reply)

    def _unprotected(self, surface: Surface) -> Decision:
        return Decision(
            effect=Effect.ALLOW,
            surface=surface,
            reason="UNPROTECTED: no policy is loaded; nothing was checked.",
            reference=self._ids.new("dec"),
            is_protected=False,
        )
