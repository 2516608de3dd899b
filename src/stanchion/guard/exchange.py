"""One exchange under guard: what may go to the model, and what may come back from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import msgspec

from stanchion.core.codec import digest, digest_text
from stanchion.core.decision import Decision, Effect, Mode, Surface
from stanchion.core.finding import Finding
from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Message,
    Part,
    Refusal,
    Reply,
    Role,
    Text,
    ToolCall,
    stand_in,
)
from stanchion.core.origin import Origin
from stanchion.guard.call_grounds import call_objections, own_ground
from stanchion.guard.examine import TAKEN_OUT, Examined, Examiner, Ground, Passing, Subject, SurfaceOutcome
from stanchion.guard.fallback import Fallback
from stanchion.guard.fields import (
    Field,
    json_depth,
    reply_fields,
    request_fields,
    rewrite_reply,
    rewrite_request,
)
from stanchion.guard.joined_messages import Places
from stanchion.guard.json_answer import fitted
from stanchion.guard.media import MediaReader, TextExtractor
from stanchion.guard.parameters import parameter_fields, rewrite_parameters
from stanchion.guard.policy_model import MarkingStyle, Policy
from stanchion.guard.prompts import mark_interaction, request_seed
from stanchion.guard.redaction import Mark, Redactor
from stanchion.guard.restore import Restorer
from stanchion.guard.rules import Operator
from stanchion.guard.vault import Vault, VaultKeeper
from stanchion.guard.workers import Door

# Where the user's own words stand: only those come back out of the vault. What the operator, a document or a
# tool brought in is redacted for good, or an answer would give it to whoever asks.
_ANSWERED = (Surface.OUTPUT, Surface.REASONING)
_REVERSIBLE = frozenset({Surface.INPUT})
_BROUGHT = (Origin.RETRIEVED, Origin.MEMORY)
_NO_COUNTS: Mapping[str, int | None] = {}
_FOR_PEOPLE = (Effect.REQUIRE_APPROVAL, Effect.ROUTE)
Outcomes = Mapping[Surface, SurfaceOutcome]
Grounds = Mapping[Surface, Sequence[tuple[Ground, Finding]]]


class CallCounter(Protocol):
    """Counts the calls of a session, for whoever keeps sessions beyond the history of a request."""

    async def take(self, calls: Mapping[str, int]) -> Mapping[str, int | None]:
        """Count so many calls of each tool; how many there were before, None where that is not known."""
        ...

    async def give_back(self, calls: Mapping[str, int]) -> None:
        """They were stopped, and do not count."""
        ...


class PreparedInteraction(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was checked. Send `interaction` to the model, unless `blocked` is the answer already.

    A request that is routed elsewhere has both: `blocked`, and what another model may get as `interaction`.
    When the guard changed nothing, `interaction` is `original` itself, so that an answer to the unguarded
    request can be taken over. `counter` counts the calls of its session beside the history.
    """

    original: Interaction
    interaction: Interaction
    decisions: tuple[Decision, ...]
    blocked: Reply | None
    vault: Vault
    parameters: Mapping[str, Any] = msgspec.field(default_factory=dict)
    has_other_parameters: bool = False
    counter: CallCounter | None = None

    @property
    def is_unchanged(self) -> bool:
        """Whether the model would be asked exactly what the unguarded feature asks."""
        is_same = self.interaction is self.original and not self.has_other_parameters
        return self.blocked is None and is_same


class Exchange:
    """Prepares requests and finishes replies by one policy."""

    def __init__(
        self,
        policy: Policy,
        examiner: Examiner,
        *,
        redactor: Redactor,
        keeper: VaultKeeper,
        marking_key: bytes,
        extractors: Sequence[TextExtractor] | None = None,
    ) -> None:
        self._media = MediaReader(policy.media, extractors)
        self._policy = policy
        self.examiner = examiner
        self.redactor = redactor
        self._keeper = keeper
        self._marking_key = marking_key
        self._fallback = Fallback(policy.safe_completions)
        held = policy.retrieval.quarantine
        self._holds_quarantine = bool(held.digests or held.sources)

    async def prepare(
        self,
        door: Door,
        interaction: Interaction,
        context: Mapping[str, tuple[str, ...]],
        parameters: Mapping[str, Any],
    ) -> PreparedInteraction:
        """Check everything that would leave for the provider."""
        subject = subject_of(interaction, context)
        calls: list[ToolCall] = []
        for message in interaction.messages:
            calls.extend(message.tool_calls)
        texts = chain(request_fields(interaction), parameter_fields(interaction, parameters))
        fields = await self._media.read(door, texts)
        grounds = {Surface.INPUT: list(self._too_deep(calls))} if calls else {}
        if self._holds_quarantine:
            grounds[Surface.RETRIEVED] = list(self._quarantined(interaction))
        outcomes = await self.examiner.examine(door, fields, subject, grounds=grounds)
        vault = self._keeper.open(interaction.session_id)
        decisions: tuple[Decision, ...] = ()
        for outcome in outcomes.values():
            decisions += (outcome.decision,)
        stop = _stopping(outcomes)
        blocked = None if stop is None else self._refusal(stop, subject, decisions)
        prepared, sent = interaction, parameters
        if stop is None or stop.decision.enforced_effect is Effect.ROUTE:  # it may go to another model
            rewrites = self.rewrites(outcomes, vault, subject)
            if rewrites:
                prepared = rewrite_request(interaction, rewrites)
                sent = rewrite_parameters(parameters, rewrites)
            prepared = self._marked(prepared)
        return PreparedInteraction(
            original=interaction,
            interaction=prepared,
            decisions=decisions,
            blocked=blocked,
            vault=vault,
            parameters=sent,
            has_other_parameters=sent is not parameters,
        )

    async def finish(
        self,
        door: Door,
        prepared: PreparedInteraction,
        reply: Reply,
        context: Mapping[str, tuple[str, ...]],
        *,
        passing: Passing | None = None,
    ) -> Interaction:
        """Check what the model said, and give the original interaction with the reply that may be shown.

        `passing` is what was checked of the reply while it came.
        """
        original = prepared.original
        subject = subject_of(original, context)
        grounds: dict[Surface, list[tuple[Ground, Finding]]] = {}
        taken: dict[str, int] = {}
        if reply.message.tool_calls:
            taken = self._limited(reply) if prepared.counter is not None else {}
            before = await prepared.counter.take(taken) if prepared.counter is not None and taken else {}
            grounds[Surface.TOOL_CALL] = list(self._calls(original, reply, before))
        fields = await self._media.read(door, reply_fields(reply.message))
        outcomes = await self.examiner.examine(door, fields, subject, grounds=grounds, passing=passing)
        decisions = (*prepared.decisions, *reply.decisions)
        for outcome in outcomes.values():
            decisions += (outcome.decision,)
        stop = _stopping(outcomes)
        if stop is not None:
            is_waiting = stop.decision.enforced_effect in _FOR_PEOPLE  # it may be released later
            if taken and prepared.counter is not None and not is_waiting:
                await prepared.counter.give_back(taken)
            refusal = self._refusal(stop, subject, decisions)
            shown = msgspec.structs.replace(
                reply, message=refusal.message, finish_reason=refusal.finish_reason, decisions=decisions
            )
        else:
            message = rewrite_reply(reply.message, self.rewrites(outcomes, prepared.vault, subject))
            shown = msgspec.structs.replace(
                reply, message=restored(message, prepared.vault), decisions=decisions
            )
        return msgspec.structs.replace(original, reply=shown)

    async def redacted(self, door: Door, prepared: PreparedInteraction, reply: Reply) -> Message | None:
        """What a person may release of a reply that waits for one: all that is redacted stays redacted.

        None when, looked at again, it is to be blocked, or a check failed that fails closed.
        """
        subject = subject_of(prepared.original, {})
        grounds = {Surface.TOOL_CALL: list(self._calls(prepared.original, reply))}
        fields = await self._media.read(door, reply_fields(reply.message))
        outcomes = await self.examiner.examine(door, fields, subject, grounds=grounds)
        stop = _stopping(outcomes)
        if stop is not None and stop.decision.enforced_effect not in _FOR_PEOPLE:
            return None
        message = rewrite_reply(reply.message, self.rewrites(outcomes, prepared.vault, subject))
        return restored(message, prepared.vault)

    async def examine(
        self, door: Door, fields: Iterable[Field], subject: Subject, *, grounds: Grounds | None = None
    ) -> Outcomes:
        """The outcomes on fields that stand alone; `grounds` as for `Examiner.examine`."""
        return await self.examiner.examine(door, fields, subject, grounds=grounds)

    def rewrites(self, outcomes: Outcomes, vault: Vault, subject: Subject) -> dict[str, str]:
        """The fields that must say something else, with what they shall say."""
        texts: dict[str, str] = {}
        for surface, outcome in outcomes.items():
            if outcome.ground is None or outcome.decision.mode is Mode.SHADOW or outcome.is_silent:
                continue  # every hit of a rule is a ground
            kept = vault if surface in _REVERSIBLE else None
            over = _marks_over([one for one in outcome.examined if one.field.pieces], self)
            for one in outcome.examined:
                if one.field.pieces:
                    continue
                text = self._rewritten(one, outcome, kept, subject, also=over.get(one.field.field, ()))
                if text != one.field.text:
                    texts[one.field.field] = text
            for one in outcome.examined:
                if one.field.pieces and one.effect is Effect.REPLACE and one.field.surface in TAKEN_OUT:
                    texts |= _taken_out_of(one, self._rewritten(one, outcome, kept, subject))
        return texts

    def _rewritten(
        self,
        one: Examined,
        outcome: SurfaceOutcome,
        vault: Vault | None,
        subject: Subject,
        *,
        also: Sequence[Mark] = (),
    ) -> str:
        if one.effect is Effect.REPLACE and one.field.surface in TAKEN_OUT:
            reference = outcome.decision.reference
            return self._fallback.notice(one.field.surface, reference=reference, language=subject.locale[:2])
        marks = [*self.marks_of(one), *also]
        if marks and one.field.surface in _ANSWERED:
            marks = fitted(one.field.text, marks)
        return self.redactor.redact(one.field.text, marks, vault=vault) if marks else one.field.text

    def marks_of(self, one: Examined) -> list[Mark]:
        """The stretches of a field that the rules rewrite."""
        return [self.mark(hit.found.finding, hit.rule.operator) for hit in one.ruling.redactions()]

    def mark(self, finding: Finding, operator: Operator | None) -> Mark:
        """The stretch of text that a finding asks to rewrite, and how."""
        return Mark(
            start=finding.location.start,
            end=finding.location.end,
            category=finding.category,
            operator=operator or self._policy.redaction.operator,
            severity=finding.severity,
            score=finding.score,
        )

    def completion(self, outcome: SurfaceOutcome, subject: Subject) -> str:
        """The words for the user in place of what was stopped."""
        ground = outcome.ground or Ground(effect=Effect.BLOCK, rule_id="", category="", reason="")
        needs_approval = ground.effect is Effect.REQUIRE_APPROVAL
        return self._fallback.completion(
            "approval" if needs_approval else ground.category,
            reference=outcome.decision.reference,
            message=ground.message,
            language=subject.locale[:2],
            style="hand_over" if ground.effect is Effect.ROUTE else "",
            is_of_answer=outcome.decision.surface in (*_ANSWERED, Surface.TOOL_CALL),
        )

    def notice(self, outcome: SurfaceOutcome, subject: Subject) -> str:
        """What stands in a prompt for a text that was taken out."""
        return self._fallback.notice(
            outcome.decision.surface, reference=outcome.decision.reference, language=subject.locale[:2]
        )

    def _refusal(self, stop: SurfaceOutcome, subject: Subject, decisions: tuple[Decision, ...]) -> Reply:
        return Reply(
            message=stand_in(self.completion(stop, subject)),
            finish_reason=FinishReason.CONTENT_FILTER,
            decisions=decisions,
        )

    def _marked(self, interaction: Interaction) -> Interaction:
        policy = self._policy
        if policy.marking is MarkingStyle.NONE or policy.mode is Mode.SHADOW:
            return interaction
        seed = request_seed(self._marking_key, digest(interaction.messages))
        return mark_interaction(interaction, policy.marking, seed=seed)

    def _too_deep(self, calls: Sequence[ToolCall]) -> Iterator[tuple[Ground, Finding]]:
        limit = self._policy.limits.argument_depth
        for call in calls:
            depth = json_depth(call.arguments)
            if depth > limit:
                reason = f"arguments nested {depth} levels deep are beyond the limit of {limit}."
                yield own_ground("limits.argument_depth", Effect.BLOCK, "input.limit", reason)

    def _quarantined(self, interaction: Interaction) -> Iterator[tuple[Ground, Finding]]:
        """Documents that the policy names, however they came in."""
        held = self._policy.retrieval.quarantine
        given = [(document.text, document.source) for document in interaction.documents]
        given += [
            (part.text, part.source or "")
            for message in interaction.messages
            for part in message.parts
            if isinstance(part, Text) and part.origin is Origin.RETRIEVED
        ]
        if any(held.holds(digest=digest_text(text), source=source) for text, source in given):
            reason = "a retrieved document is in quarantine."
            yield own_ground("retrieval.quarantine", Effect.BLOCK, "leakage.document", reason)

    def _limited(self, reply: Reply) -> dict[str, int]:
        """How often a reply calls each tool whose calls the policy limits."""
        found: dict[str, int] = {}
        for call in reply.message.tool_calls:
            rule = self._policy.tools.named.get(call.name)
            if rule is not None and rule.calls_per_session is not None:
                found[call.name] = found.get(call.name, 0) + 1
        return found

    def _calls(
        self, original: Interaction, reply: Reply, before_by: Mapping[str, int | None] = _NO_COUNTS
    ) -> Iterator[tuple[Ground, Finding]]:
        """What speaks against the calls of a reply.

        Earlier calls of the conversation count, and those of `before_by`; the greater number holds.
        """
        counts: dict[str, int] = {}
        for message in original.messages:
            for call in message.tool_calls:
                counts[call.name] = counts.get(call.name, 0) + 1
        definitions = {tool.name: tool for tool in original.tools}
        for call in reply.message.tool_calls:
            counted = before_by.get(call.name, 0)
            before = None if counted is None else max(counts.get(call.name, 0), counted)
            yield from call_objections(
                self._policy,
                call,
                definitions.get(call.name),
                declared=tuple(definitions),
                calls_before=before,
            )
            counts[call.name] = 0 if before is None else before + 1


def _marks_over(joined: Iterable[Examined], exchange: Exchange) -> dict[str, list[Mark]]:
    """The marks of texts over several parts, cut into those parts."""
    cut: dict[str, list[Mark]] = {}
    for one in joined:
        places = Places(one.field.pieces)
        for mark in exchange.marks_of(one):
            for field, (start, end) in places.spans_of(mark.start, mark.end).items():
                cut.setdefault(field, []).append(msgspec.structs.replace(mark, start=start, end=end))
    return cut


def _taken_out_of(one: Examined, notice: str) -> dict[str, str]:
    """What stands in the parts of a text that was taken out: one notice, in the first of them."""
    places = [
        hit.found.finding.location for hit in one.ruling.hits if hit.rule.effect.rank >= Effect.REPLACE.rank
    ]
    texts: dict[str, str] = {}
    for piece in one.field.pieces:
        end = piece.at + piece.length
        if any(place.start < end and place.end > piece.at for place in places):
            texts[piece.field] = "" if texts else notice
    return texts or {piece.field: notice for piece in one.field.pieces}


def subject_of(interaction: Interaction, context: Mapping[str, tuple[str, ...]]) -> Subject:
    """What detectors may read beside the text: system prompt, documents, question, the caller's `context`."""
    system: list[str] = []
    filled_in: list[str] = []
    brought: list[str] = []
    question: str | None = None
    documents = interaction.documents
    listed = {document.id for document in documents} if documents else ()
    for message in interaction.messages:
        for part in message.parts:
            if not isinstance(part, Text):
                continue
            if part.origin is Origin.SYSTEM:
                system.append(part.text)
            elif part.origin in _BROUGHT and part.source not in listed:
                brought.append(part.text)
            if message.role is Role.USER:
                question = part.text
            elif message.role is Role.SYSTEM and part.origin is Origin.USER and len(message.parts) > 1:
                filled_in.append("".join([one.text for one in message.parts if isinstance(one, Text)]))
    system += dict.fromkeys(filled_in)  # a prompt with a user's words in it is one text, too
    filled: dict[str, tuple[str, ...]] = {}
    if system:
        filled["system_prompt"] = tuple(system)
    if documents or brought:
        filled["documents"] = (*[document.text for document in documents], *brought)
    if documents:
        filled["document_ids"] = tuple([document.id for document in documents])
    if question is not None:
        filled["question"] = (question,)
    return Subject(
        context={**filled, **context},
        session_id=interaction.session_id,
        locale=interaction.labels.get("locale", ""),
        tenant=interaction.tenant,
    )


def restored(message: Message, vault: Vault) -> Message:
    """The message with the vault's values back in words and tool calls, but in no URL, over all its parts."""
    if not len(vault):
        return message
    words = vault.restorer()
    parts = tuple(_restored(part, vault, words) for part in message.parts)
    return msgspec.structs.replace(message, parts=parts)


def _restored(part: Part, vault: Vault, words: Restorer) -> Part:
    match part:
        case Text() | Refusal():
            return msgspec.structs.replace(part, text=words.feed(part.text) + words.finish())
        case ToolCall():
            raw = part.raw_arguments
            return msgspec.structs.replace(
                part,
                arguments=vault.restore_value(part.arguments),
                raw_arguments=None if raw is None else vault.restore_json(raw),
            )
        case _:
            return part


def _stopping(outcomes: Outcomes) -> SurfaceOutcome | None:
    """The outcome that ends the exchange: the strictest one that does; None when it may go on."""
    strictest: SurfaceOutcome | None = None
    for outcome in outcomes.values():
        effect = outcome.decision.effect
        if effect is Effect.ALLOW or not is_stop(outcome.decision):
            continue
        if strictest is None or effect.rank > strictest.decision.effect.rank:
            strictest = outcome
    return strictest


def is_stop(decision: Decision) -> bool:
    """Whether a decision ends the exchange rather than change a text of it."""
    effect = decision.enforced_effect
    if effect is Effect.REPLACE:
        return decision.surface not in TAKEN_OUT
    return effect.rank > Effect.REPLACE.rank
