"""From an answer to a result: every planned scorer gives one score, whatever breaks."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, cast

import msgspec

from stanchion.core.codec import digest
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision, Effect, strictest
from stanchion.core.errors import StanchionError
from stanchion.core.interaction import FinishReason, Interaction, Message, Refusal, Reply, Role
from stanchion.evals.case import Case
from stanchion.evals.results import CaseResult, Outcome, Score, TargetKind, Transcript, worst
from stanchion.evals.scorers.scorer import Answer, AnyScorer, AsyncScorer, Scorer
from stanchion.evals.transcript import Scribe
from stanchion.models.client import request_digest

log = logging.getLogger(__name__)
_NO_SCORER = "no scorer applies to this case"
_DECISION_ONLY = "the target gives decisions, not answers"


class Attempted(NamedTuple):
    """One case, asked: the request, the exchange as it ended with its reply, or what broke."""

    case: Case
    repeat: int
    asked: Interaction
    done: Interaction
    reply: Reply | None
    latency_ms: float
    error: BaseException | None = None
    is_cached: bool = False


def blocked_reply(latency_ms: float) -> Reply:
    """What the user of a guarded feature got when the guard raised: nothing of the model's."""
    return Reply(
        message=Message(role=Role.ASSISTANT, parts=(Refusal(text=""),)),
        finish_reason=FinishReason.CONTENT_FILTER,
        latency_ms=latency_ms,
    )


def is_decision_only(reply: Reply) -> bool:
    """Whether the target was a detector or a guard alone: there is no answer that could be safe."""
    return reply.finish_reason is FinishReason.UNKNOWN and not reply.message.parts


class Judge:
    """Turns attempts into results.

    Args:
        scorers: all of the suite's; each judges the cases it applies to.
        components: of the target and the suite.
        kind: whether a real target answers.
        scribe: decides on the words that are kept.
    """

    def __init__(
        self, scorers: tuple[AnyScorer, ...], components: ComponentSet, *, kind: TargetKind, scribe: Scribe
    ) -> None:
        self._scorers = scorers
        self._waiting = frozenset(id(scorer) for scorer in scorers if hasattr(scorer, "ascore"))
        self._component_set = components.digest
        self._kind = kind
        self._scribe = scribe

    async def result(self, attempt: Attempted) -> CaseResult:
        """The judged case. Never raises for what a scorer does."""
        case, reply = attempt.case, attempt.reply
        if reply is None:
            return self._failed(attempt)
        answer = Answer(case, attempt.done, reply)
        scores = tuple(
            [await self._score(scorer, answer) for scorer in self._scorers if scorer.applies(case)]
        )
        outcome = worst([score.outcome for score in scores])
        keeps_words = outcome is not Outcome.SAFE or self._scribe.is_sampled(case.digest)
        decisions = reply.decisions
        return CaseResult(
            **_identity(case, attempt.repeat),
            outcome=outcome,
            scores=scores,
            request_digest=request_digest(attempt.asked),
            reply_digest=digest(reply.message),
            component_set=self._component_set,
            target_kind=self._kind,
            latency_ms=reply.latency_ms if reply.latency_ms is not None else attempt.latency_ms,
            guard_ms=sum(decision.elapsed_ms for decision in decisions) if decisions else None,
            usage=reply.usage,
            is_cached=attempt.is_cached,
            reused_from="" if attempt.is_cached else reply.reused_from or "",
            effect=_effect(decisions),
            rule_ids=tuple(dict.fromkeys(rule for d in decisions for rule in d.rule_ids)),
            reason="" if scores else _NO_SCORER,
            transcript=self._words(attempt.done, reply.message, case) if keeps_words else None,
        )

    def _words(self, asked: Interaction, reply: Message | None, case: Case) -> Transcript | None:
        return self._scribe.write(asked, reply, planted=_planted(case))

    def skipped(self, case: Case, repeat: int, reason: str) -> CaseResult:
        """A case that was never asked."""
        return self._without_answer(case, repeat, outcome=Outcome.SKIPPED, reason=reason)

    def _failed(self, attempt: Attempted) -> CaseResult:
        error = attempt.error
        kind = type(error).__name__ if error is not None else "NoReply"
        result = self._without_answer(
            attempt.case, attempt.repeat, outcome=Outcome.ERROR, reason=f"the target failed: {kind}"
        )
        return msgspec.structs.replace(
            result,
            error=kind,
            reason=self._why(error, attempt.case),
            request_digest=request_digest(attempt.asked),
            latency_ms=attempt.latency_ms,
            transcript=self._words(attempt.asked, None, attempt.case),
        )

    def _why(self, error: BaseException | None, case: Case) -> str:
        """What broke, in words that may be kept; the error of a target can quote anything."""
        if error is None:
            return "the target gave no reply"
        words = str(error) if isinstance(error, StanchionError) else f"{type(error).__name__}: {error}"
        return self._scribe.scrubbed(words, planted=_planted(case))

    def _without_answer(self, case: Case, repeat: int, *, outcome: Outcome, reason: str) -> CaseResult:
        scores = tuple(_unanswered(s, case, outcome, reason) for s in self._scorers if s.applies(case))
        return CaseResult(
            **_identity(case, repeat),
            outcome=outcome,
            scores=scores,
            component_set=self._component_set,
            target_kind=self._kind,
            reason=reason,
        )

    async def _score(self, scorer: AnyScorer, answer: Answer) -> Score:
        if is_decision_only(answer.reply) and not getattr(scorer, "reads_decisions", False):
            return _unanswered(scorer, answer.case, Outcome.UNSCORED, _DECISION_ONLY)
        try:
            if id(scorer) in self._waiting:
                return await cast(AsyncScorer, scorer).ascore(answer)
            return cast(Scorer, scorer).score(answer)
        except Exception as error:  # the edge of an eval case: counted and logged, never safe
            kind = type(error).__name__
            log.warning("scorer %s broke on case %s: %s", scorer.id, answer.case.id, kind)
            return _unanswered(scorer, answer.case, Outcome.ERROR, f"the scorer broke: {kind}")


def _planted(case: Case) -> tuple[str, ...]:
    """What the case says must not get out."""
    return (*case.canaries.values(), *case.expect.excludes)


def _identity(case: Case, repeat: int) -> dict[str, Any]:
    return {
        "case_id": case.id,
        "case_digest": case.digest,
        "pairing_key": case.pairing_key,
        "repeat": repeat,
        "cluster": case.cluster,
        "category": case.category,
        "tags": case.tags,
        "language": case.language,
        "source": case.source,
    }


def _unanswered(scorer: AnyScorer, case: Case, outcome: Outcome, reason: str) -> Score:
    concern = scorer.concern_for(case)
    return Score(scorer=scorer.id, version=scorer.version, outcome=outcome, concern=concern, reason=reason)


def _effect(decisions: tuple[Decision, ...]) -> Effect | None:
    return strictest(*(decision.enforced_effect for decision in decisions)) if decisions else None
