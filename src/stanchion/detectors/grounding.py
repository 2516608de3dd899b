"""Is the answer supported by what the model was given? By sentence, by fact, by citation.

Numbers, dates, names and identifiers must be in the documents (or in what the model was told); a sentence
must be carried by their words; a cited document must exist and say what it is cited for. Greetings, opinions,
questions and "I do not know" are no claims. Deterministic: every score can be explained. An entailment model
may take the place of the lexical weighing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from stanchion.core.codec import digest, short
from stanchion.core.errors import JudgementError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.taxonomy import category
from stanchion.detectors.folding import folded
from stanchion.detectors.grounding_citations import Cited, citations_in, passages, vouched
from stanchion.detectors.grounding_claims import Claim, all_facts, claims_in
from stanchion.detectors.grounding_lexicon import language_of, lexicon
from stanchion.detectors.grounding_nli import Entailment, OnnxEntailment
from stanchion.detectors.grounding_support import (
    Sources,
    features_of,
    nearest_text,
    packaged_model,
    read_sources,
)
from stanchion.detectors.grounding_text import Sentence, is_claim, sentences_of
from stanchion.detectors.scan import Scanner
from stanchion.detectors.surrogates import all_replaced, replaced

ID = "grounding"
CODE_VERSION = "2"
CHECKS = ("sentences", "numbers", "dates", "names", "citations")
KINDS = {"numbers": {"number"}, "dates": {"date", "time"}, "names": {"name"}}
NAMES_MEAN_NOTHING = frozenset({"de", "lb"})  # every noun is written with a capital

_FACT_SCORE = 0.75  # a figure that is nowhere: wrong in 9 of 10 answers of the training sources
_NAME_SCORE = 0.45  # a name alone: it may be a title, or the same person otherwise called
_UNKNOWN_DOCUMENT = 0.9
_LOWEST = 0.2  # sentences below are not reported
MOST_TEXT = 200_000  # characters of an answer; a longer one is a failed check


class Material(NamedTuple):
    """What the model was given: documents with their ids, and what it was told beside them."""

    documents: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


class Options(NamedTuple):
    """What is checked; `tolerance` is relative, for numbers."""

    checks: frozenset[str] = frozenset(CHECKS)
    tolerance: float = 0.0


class Doubt(NamedTuple):
    """Something without support; rules are `sentence`, `number`, `not_said_there`, ..."""

    category: str
    rule: str
    start: int
    end: int
    score: float
    reason: str


class Examination(NamedTuple):
    """What was checked (sentences, facts, citations) and what of it has no support."""

    sentences: tuple[Sentence, ...]
    facts: tuple[Claim, ...]
    citations: tuple[Cited, ...]
    doubts: tuple[Doubt, ...]

    @property
    def checked(self) -> int:
        """How many things were checked."""
        return len(self.sentences) + len(self.facts) + len(self.citations)


class Examiner:
    """Compares answers with material. Pure; safe to share between threads."""

    def __init__(self, options: Options | None = None, *, entailment: Entailment | None = None) -> None:
        self._options = options or Options()
        self._kinds = frozenset(kind for name in self._options.checks for kind in KINDS.get(name, ()))
        self._entailment = entailment
        _, weights = packaged_model()
        parts = [
            CODE_VERSION,
            weights,
            lexicon().digest,
            sorted(self._options.checks),
            self._options.tolerance,
        ]
        self.version = f"{CODE_VERSION}+{short(digest([*parts, entailment.version if entailment else '']))}"

    def examine(self, text: str, material: Material, *, language: str = "") -> Examination:
        """Everything checkable in an answer, and what has no support.

        Raises:
            JudgementError: when the answer, or what it is compared with, is too long to be read to its end.
        """
        text = _readable(text)
        material = Material(*map(all_replaced, material))
        checks = self._options.checks
        cited = tuple(citations_in(text, material.ids, count=len(material.documents)))
        plain = _blanked(text, [(one.start, one.end) for one in cited])
        facts = tuple(self._facts(plain, language))
        sources = read_sources((*material.documents, *material.told))
        sentences = tuple(s for s in sentences_of(plain) if is_claim(plain, s))
        scores = self._sentence_scores(plain, sentences, sources)
        doubts = list(self._fact_doubts(facts, material, list(zip(sentences, scores, strict=True))))
        if "sentences" in checks:
            scored = zip(sentences, scores, strict=True)
            doubts += [_sentence_doubt(s, score, sources) for s, score in scored if score >= _LOWEST]
        if "citations" in checks:
            doubts += self._citation_doubts((text, plain), cited, facts, material)
        return Examination(
            sentences if "sentences" in checks else (), facts, cited if "citations" in checks else (),
            tuple(sorted(doubts, key=lambda d: (d.start, d.end, d.rule))),
        )  # fmt: skip

    def _facts(self, text: str, language: str) -> Iterator[Claim]:
        kinds = self._kinds
        if (language.partition("-")[0] or language_of(text)) in NAMES_MEAN_NOTHING:
            kinds = kinds - {"name"}
        return (claim for claim in claims_in(text) if claim.kind in kinds)

    def _sentence_scores(self, text: str, sentences: Sequence[Sentence], sources: Sources) -> list[float]:
        """One score for each sentence, the same for the same words; 0 when sentences are not checked."""
        if "sentences" not in self._options.checks:
            return [0.0] * len(sentences)
        known: dict[str, float] = {}
        for sentence in sentences:
            body = text[sentence.start : sentence.end]
            if body not in known:
                known[body] = self._sentence_score(text, sentence, sources)
        return [known[text[sentence.start : sentence.end]] for sentence in sentences]

    def _sentence_score(self, text: str, sentence: Sentence, sources: Sources) -> float:
        if self._entailment is not None:
            premise = nearest_text(sentence, sources)
            return 1.0 - self._entailment.entails(premise, text[sentence.start : sentence.end])
        model, _ = packaged_model()
        return model.score(model.logit(features_of(text, sentence, sources, model.rarity)))

    def _fact_doubts(
        self, facts: Sequence[Claim], material: Material, scored: Sequence[tuple[Sentence, float]]
    ) -> Iterator[Doubt]:
        supported = all_facts((*material.documents, *material.ids, *material.told))
        starts = [sentence.start for sentence, _ in scored]
        for claim in facts:
            if supported.support(claim, tolerance=self._options.tolerance):
                continue
            index = bisect_right(starts, claim.start) - 1
            around = scored[index][1] if index >= 0 and claim.start < scored[index][0].end else 0.0
            least = _NAME_SCORE if claim.kind == "name" else _FACT_SCORE
            reason = f"the {claim.kind} is in nothing that the model was given"
            yield Doubt(
                "grounding.unsupported", claim.kind, claim.start, claim.end, max(least, around), reason
            )

    def _citation_doubts(
        self, texts: tuple[str, str], cited: Sequence[Cited], facts: Sequence[Claim], material: Material
    ) -> Iterator[Doubt]:
        """`texts` are the answer and the answer with blanks for its citations."""
        told = all_facts(material.told)
        news = [claim for claim in facts if not told.support(claim, tolerance=self._options.tolerance)]
        sentences = passages(texts[0])
        scores: dict[tuple[str, int], float] = {}
        for one in sorted(
            cited, key=lambda one: (one.document or 0, one.start)
        ):  # each document is read once
            if one.document is None:
                reason = "no document of this name or number was given"
                yield Doubt(
                    "grounding.citation", "unknown_document", one.start, one.end, _UNKNOWN_DOCUMENT, reason
                )
                continue
            place = vouched(one.start, sentences)
            key = (texts[1][place[0] : place[1]], one.document)
            if key not in scores:
                only = Material((material.documents[one.document],), (), material.told)
                scores[key] = self._not_said(texts[1], place, news, only)
            if scores[key] >= _LOWEST:
                reason = "the cited document does not say what it is cited for"
                yield Doubt("grounding.citation", "not_said_there", one.start, one.end, scores[key], reason)

    def _not_said(
        self, text: str, place: tuple[int, int], news: Sequence[Claim], material: Material
    ) -> float:
        """How sure it is that one document does not say what stands in a place of the answer.

        `news` are the facts that the conversation did not bring in; its words count as carried.
        """
        start, end = place
        supported = all_facts(material.documents)
        first = bisect_left(news, start, key=lambda claim: claim.start)
        inside = takewhile(lambda claim: claim.start < end, islice(news, first, None))
        if any(not supported.support(claim, tolerance=self._options.tolerance) for claim in inside):
            return _FACT_SCORE
        passage = text[start:end]
        sources = read_sources((*material.documents, *material.told))
        claims = (s for s in sentences_of(passage) if is_claim(passage, s))
        return max((self._sentence_score(passage, s, sources) for s in claims), default=0.0)


_EXAMPLE = (
    "Anna Berg sold 12 boats on 3 May 2024 [1]. The cold water was not warm.",
    Material(("Anna Berg sold twelve boats on May 3, 2024. The hot water was warm.",)),
)


class GroundingDetector:
    """Reports claims of an answer that its documents do not support, and citations that are wrong.

    Context: `documents`, `document_ids` (same order, for citations by name), `question` and `system_prompt`
    (what they say may be repeated). Without documents nothing is reported, unless `require_documents` is set.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    categories = ("grounding.citation", "grounding.unsupported")

    def __init__(
        self, examiner: Examiner, *, require_documents: bool = False, cost: Cost = Cost.MILLISECONDS
    ) -> None:
        self._examiner = examiner
        self._require_documents = require_documents
        self.cost = cost
        self.version = f"{examiner.version}{'+required' if require_documents else ''}"

    def prepare(self) -> None:
        """Read the word lists and compile the expressions, by a look at one answer, so that none waits.

        Raises:
            IntegrityError: when the weights were made for other features.
        """
        self._examiner.examine(*_EXAMPLE)

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings in order of position."""
        context, text = detector_input.context, detector_input.text
        documents = context.get("documents", ())
        if not documents:
            return self._without_documents(text)
        told = (*context.get("system_prompt", ()), *context.get("question", ()))
        material = Material(documents, context.get("document_ids", ()), told)
        found = self._examiner.examine(text, material, language=detector_input.locale)
        return folded([self._finding(doubt) for doubt in found.doubts])

    def _without_documents(self, text: str) -> Sequence[Finding]:
        if not self._require_documents:
            return ()
        text = _readable(text)
        claims = [s for s in sentences_of(text) if is_claim(text, s)]
        reason = "no document was given that could support it"
        return folded(
            [
                self._finding(Doubt("grounding.unsupported", "no_documents", s.start, s.end, 1.0, reason))
                for s in claims
            ]
        )

    def _finding(self, doubt: Doubt) -> Finding:
        return Finding(
            detector=ID, version=self.version, category=doubt.category, score=round(doubt.score, 4),
            location=Location(start=doubt.start, end=doubt.end), severity=category(doubt.category).severity,
            rule=doubt.rule, reason=doubt.reason,
        )  # fmt: skip


def _readable(text: str) -> str:
    if len(text) > MOST_TEXT:
        raise JudgementError(
            f"{ID}: {len(text):,} characters are more than the {MOST_TEXT:,} that are compared.",
            hint="Check the answer in parts, or lower the policy's limit output_characters.",
        )
    return replaced(text)


def _sentence_doubt(sentence: Sentence, score: float, sources: Sources) -> Doubt:
    words = set(sentence.words)
    reason = f"{len(words & sources.words)} of its {len(words)} words are in what the model was given"
    return Doubt("grounding.unsupported", "sentence", sentence.start, sentence.end, score, reason)


def _blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with blanks in some places, so that offsets stay."""
    letters = list(text)
    for start, end in spans:
        letters[start:end] = " " * (end - start)
    return "".join(letters)


def create(
    *,
    scanner: Scanner,
    checks: Sequence[str] = CHECKS,
    tolerance: float = 0.0,
    require_documents: bool = False,
    nli: str = "",
) -> GroundingDetector:
    """The detector.

    Args:
        scanner: not used; every factory is given it.
        checks: of `sentences`, `numbers`, `dates` (with times), `names` (with identifiers), `citations`.
        tolerance: relative, for numbers, in [0, 1).
        require_documents: report every claim of an answer that no document was given for.
        nli: a folder with an entailment model (`model.onnx`, `tokenizer.json`, `config.json`); extra `ml`.

    Raises:
        UsageError: for checks that do not exist, or a model that cannot be read.
        MissingExtraError: when `nli` is given and the extra `ml` is not installed.
    """
    unknown = sorted(set(checks) - set(CHECKS))
    if unknown or not checks:
        raise UsageError(
            f"grounding: checks {unknown or 'are empty'}.", hint=f"Allowed: {', '.join(CHECKS)}."
        )
    if not 0 <= tolerance < 1:
        raise UsageError(f"grounding: tolerance {tolerance} is outside [0, 1).")
    entailment = OnnxEntailment.load(nli) if nli else None
    examiner = Examiner(Options(frozenset(checks), tolerance), entailment=entailment)
    return GroundingDetector(examiner, require_documents=require_documents)
