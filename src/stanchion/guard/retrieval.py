"""`RetrievalGuard`: what a retriever found, let in document by document; what an answer cites, checked.

retrieval = RetrievalGuard(guard, load_index(path, keys))
prepared = retrieval.prepare(interaction, found, reader=Reader(tenant="acme", user="ann"))
finished = retrieval.finish(prepared, model_reply)

A document that may not come in is left out, and the exchange goes on without it. Who reads is what the
application has authenticated; source, owner, readers and age are what the signed index says, never what the
retriever says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.clock import Clock, Ids, SortableIds, SystemClock
from stanchion.core.codec import Digest, digest_text
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision, Effect, Mode, Surface
from stanchion.core.errors import JudgementError, UsageError
from stanchion.core.interaction import (
    Document,
    FinishReason,
    Interaction,
    Message,
    Reply,
    Role,
    Text,
    assistant,
    stand_in,
)
from stanchion.core.origin import Origin
from stanchion.guard.exchange import PreparedInteraction
from stanchion.guard.fallback import Fallback
from stanchion.guard.retrieval_citations import CitationReport, examine_citations
from stanchion.guard.retrieval_index import IndexedDocument, IndexManifest, Reader
from stanchion.guard.retrieval_quarantine import QuarantineFile
from stanchion.guard.retrieval_rules import CitationHandling, Quarantined, matches_any

if TYPE_CHECKING:
    from stanchion.guard.pipeline import Guard

RULE = "retrieval.citations"


class ExclusionRule(StrEnum):
    """Why a document was left out, in the order in which it is asked."""

    NOT_INDEXED = "not_indexed"
    CHANGED = "changed"
    QUARANTINE = "quarantine"
    REFUSED_AT_INDEXING = "refused_at_indexing"
    SOURCE = "source"
    ACCESS = "access"
    AGE = "age"
    SIZE = "size"
    SCAN = "scan"
    TOTAL = "total"


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was left out, for the operator's record; never for the reader, nor for the model."""

    document_id: str
    rule: ExclusionRule
    reason: str


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What came in for one exchange. `documents` hold the text that may be used, redacted by rules."""

    documents: tuple[Document, ...]
    excluded: tuple[Exclusion, ...]
    decisions: tuple[Decision, ...]
    reader: Reader
    index: Digest

    def parts(self) -> tuple[Text, ...]:
        """A prompt's part for each document, with its id above its text, so that it can be cited."""
        return tuple(
            Text(text=f"[{one.id}]\n{one.text}", origin=Origin.RETRIEVED, source=one.id)
            for one in self.documents
        )

    def applied(self, interaction: Interaction) -> Interaction:
        """The interaction with the documents before the words of its last user turn.

        Raises:
            UsageError: when it has no user turn, or another tenant than the reader.
        """
        if interaction.tenant and interaction.tenant != self.reader.tenant:
            raise UsageError("the interaction and the reader belong to different tenants.")
        turns = [n for n, message in enumerate(interaction.messages) if message.role is Role.USER]
        if not turns:
            raise UsageError("there is no user turn that documents could go with.")
        at = turns[-1]
        turn = interaction.messages[at]
        given = msgspec.structs.replace(turn, parts=(*self.parts(), *turn.parts))
        return msgspec.structs.replace(
            interaction,
            messages=(*interaction.messages[:at], given, *interaction.messages[at + 1 :]),
            documents=(*interaction.documents, *self.documents),
            tenant=interaction.tenant or self.reader.tenant,
            components=interaction.components.merged(ComponentSet(index=self.index)),
        )


class PreparedRetrieval(msgspec.Struct, frozen=True, kw_only=True):
    """A request with its documents, checked: send `prepared.interaction`, unless it is blocked."""

    prepared: PreparedInteraction
    admission: Admission


class RetrievalGuard:
    """Lets documents in by one policy and one signed index. Thread-safe; make one for each index."""

    def __init__(
        self,
        guard: Guard,
        index: IndexManifest,
        *,
        quarantine: QuarantineFile | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """`quarantine` is a file that can grow while this guard runs, beside what the policy says.

        Raises:
            UsageError: for a guard without a policy.
        """
        if guard.policy is None:
            raise UsageError("retrieval needs a guard with a policy.", hint="Use Guard.load(...).")
        self._guard = guard
        self._policy = guard.policy
        self._rules = guard.policy.retrieval
        self._index = index
        self._quarantine = quarantine
        self._clock = clock or SystemClock()
        self._ids = ids or SortableIds(self._clock)
        self._fallback = Fallback(guard.policy.safe_completions)

    @property
    def index(self) -> IndexManifest:
        """The manifest in use."""
        return self._index

    def admit(self, found: Iterable[Document], *, reader: Reader, session_id: str = "") -> Admission:
        """What may come in of what a retriever found, in its order.

        Raises:
            JudgementError: when the quarantine cannot be read: nothing is let in.
        """
        held = self._held()
        documents: dict[str, Document] = {}
        excluded: list[Exclusion] = []
        decisions: list[Decision] = []
        characters = 0
        for document in found:
            entry, exclusion = self._objection(document, reader, held)
            if exclusion is None and entry is not None and entry.id in documents:
                continue  # found twice
            if exclusion is None and len(documents) >= self._rules.max_documents:
                exclusion = _left_out(
                    document, ExclusionRule.TOTAL, f"{self._rules.max_documents} are in already"
                )
            if exclusion is None and characters + len(document.text) > self._rules.total_characters:
                exclusion = _left_out(
                    document, ExclusionRule.TOTAL, f"beyond {self._rules.total_characters:,} characters"
                )
            if exclusion is not None or entry is None:
                excluded.extend([] if exclusion is None else [exclusion])
                continue
            checked = self._guard.check(document.text, surface=Surface.RETRIEVED, session_id=session_id)
            decisions.append(checked.decision)
            if not checked.allowed:
                excluded.append(
                    _left_out(document, ExclusionRule.SCAN, f"decision {checked.reference} refused it")
                )
                continue
            characters += len(document.text)
            documents[entry.id] = Document(
                id=entry.id, text=checked.text, source=entry.source, digest=entry.digest
            )
        return Admission(
            documents=tuple(documents.values()),
            excluded=tuple(excluded),
            decisions=tuple(decisions),
            reader=reader,
            index=self._index.digest,
        )

    def prepare(
        self,
        interaction: Interaction,
        found: Iterable[Document],
        *,
        reader: Reader,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> PreparedRetrieval:
        """Let documents in, put them before the last user turn, and check the whole request."""
        admission = self.admit(found, reader=reader, session_id=interaction.session_id)
        prepared = self._guard.prepare(admission.applied(interaction), context=context)
        return PreparedRetrieval(prepared=prepared, admission=admission)

    async def aprepare(
        self,
        interaction: Interaction,
        found: Iterable[Document],
        *,
        reader: Reader,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> PreparedRetrieval:
        """The same for a running event loop; scanning the documents holds it as long as it takes."""
        admission = self.admit(found, reader=reader, session_id=interaction.session_id)
        prepared = await self._guard.aprepare(admission.applied(interaction), context=context)
        return PreparedRetrieval(prepared=prepared, admission=admission)

    def finish(
        self,
        prepared: PreparedRetrieval,
        reply: Reply,
        *,
        reader: Reader | None = None,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Interaction:
        """The interaction with the reply that may be shown to `reader` (default: who asked)."""
        finished = self._guard.finish(prepared.prepared, reply, context=context)
        return self._cited(finished, prepared, reader)

    async def afinish(
        self,
        prepared: PreparedRetrieval,
        reply: Reply,
        *,
        reader: Reader | None = None,
        context: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Interaction:
        """The twin of `finish`."""
        finished = await self._guard.afinish(prepared.prepared, reply, context=context)
        return self._cited(finished, prepared, reader)

    def check_citations(
        self,
        answer: str | Message,
        admission: Admission,
        *,
        reader: Reader | None = None,
        told: Sequence[str] = (),
    ) -> CitationReport:
        """Whether every citation names a document of this exchange that says it and that `reader` may see.

        `told` are the question and what else the model knew beside the documents. What was quarantined, or
        closed to the reader, since the documents came in counts as closed.

        Raises:
            JudgementError: when the quarantine or the answer cannot be read to its end.
        """
        who = reader or admission.reader
        held = self._held()

        def may_see(document_id: str) -> bool:
            entry = self._index.find(document_id)
            return entry is not None and entry.is_open_to(who) and not _is_held(entry, held)

        is_strict = self._rules.citations is CitationHandling.BLOCK
        message = assistant(answer) if isinstance(answer, str) else answer
        return examine_citations(
            message,
            admission.documents,
            told=tuple(told),
            known=lambda name: self._index.find(name) is not None,
            may_see=may_see,
            is_strict=is_strict,
        )

    def _objection(
        self, document: Document, reader: Reader, held: Quarantined
    ) -> tuple[IndexedDocument | None, Exclusion | None]:
        """The index's entry, and what speaks against letting the document in before it is scanned."""
        entry = self._index.find(document.id)
        rules = self._rules
        if entry is None:
            return None, _left_out(document, ExclusionRule.NOT_INDEXED, "the signed index does not hold it")
        if digest_text(document.text) != entry.digest:
            return None, _left_out(document, ExclusionRule.CHANGED, "its text is not what was indexed")
        if _is_held(entry, held):
            return None, _left_out(document, ExclusionRule.QUARANTINE, "it is in quarantine")
        if entry.refused:
            reason = f"the scan found {', '.join(entry.refused)}"
            return None, _left_out(document, ExclusionRule.REFUSED_AT_INDEXING, reason)
        if not matches_any(rules.sources, entry.source):
            return None, _left_out(document, ExclusionRule.SOURCE, f"source {entry.source[:80]!r}")
        if not entry.is_open_to(reader):
            return None, _left_out(document, ExclusionRule.ACCESS, "the reader may not see it")
        if rules.max_age_days is not None:
            age = self._clock.now() - entry.changed_at
            if age > timedelta(days=rules.max_age_days):
                reason = f"it changed {age.days} days ago"
                return None, _left_out(document, ExclusionRule.AGE, reason)
        if len(document.text) > rules.document_characters:
            return None, _left_out(document, ExclusionRule.SIZE, f"{len(document.text):,} characters")
        return entry, None

    def _held(self) -> Quarantined:
        of_policy = self._rules.quarantine
        if self._quarantine is None:
            return of_policy
        of_file = self._quarantine.held
        return Quarantined(
            digests=(*of_policy.digests, *of_file.digests), sources=(*of_policy.sources, *of_file.sources)
        )

    def _cited(
        self, finished: Interaction, prepared: PreparedRetrieval, reader: Reader | None
    ) -> Interaction:
        reply = finished.reply
        if prepared.prepared.blocked is not None or reply is None:
            return finished
        if reply.finish_reason is FinishReason.CONTENT_FILTER:
            return finished  # the guard's own words, which cite nothing
        told = [
            part.text
            for message in finished.messages
            for part in message.parts
            if isinstance(part, Text) and part.origin in (Origin.SYSTEM, Origin.USER)
        ]
        try:
            report = self.check_citations(reply.message, prepared.admission, reader=reader, told=told)
            findings, is_allowed, reason = report.findings, report.allowed, report.reason
        except JudgementError as error:
            findings, is_allowed, reason = (), False, f"citations could not be checked: {error.message}"
        decision = Decision(
            effect=Effect.ALLOW if is_allowed else Effect.BLOCK,
            surface=Surface.OUTPUT,
            mode=self._policy.mode,
            rule_ids=() if is_allowed else (RULE,),
            findings=findings,
            policy_digest=self._policy.digest,
            reason=reason,
            reference=self._ids.new("dec"),
        )
        decided = msgspec.structs.replace(reply, decisions=(*reply.decisions, decision))
        if not is_allowed and self._policy.mode is Mode.ENFORCE:
            words = self._fallback.completion(
                findings[0].category if findings else "check.failed",
                reference=decision.reference,
                language=finished.labels.get("locale", "")[:2],
            )
            decided = msgspec.structs.replace(
                decided, message=stand_in(words), finish_reason=FinishReason.CONTENT_FILTER
            )
        return msgspec.structs.replace(finished, reply=decided)


def _is_held(entry: IndexedDocument, held: Quarantined) -> bool:
    return held.holds(digest=entry.digest, source=entry.source)


def _left_out(document: Document, rule: ExclusionRule, reason: str) -> Exclusion:
    return Exclusion(document_id=document.id[:200], rule=rule, reason=reason)
