"""Cheap signals about a text: language, scripts, length, repetition, entropy, questions, instructions, topic.

They are no verdicts. Monitors watch how they drift; a policy may act on an answer that repeats itself without
end, or on a language or topic that a feature is not there for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.errors import UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.taxonomy import category
from stanchion.detectors.context_language import guess_language, profiles
from stanchion.detectors.scan import Scanner

ID = "context"
CODE_VERSION = "1"
_SAMPLE = 2000  # characters that words, letters and lines are counted in
_ENTROPY_SAMPLE = 256
_TAIL = 2000  # characters at the end that are looked at for loops
_WORD = re.compile(r"\w+")
_RUN = re.compile(r"(\S)\1{31,}")
_ORDER = 4  # words that must come again in the same order
_LEAST_WORDS = 40
_QUESTION = re.compile(r"[?\uff1f\u061f]")
_SENTENCE = re.compile(r"[.!?\u3002\uff01\uff1f\n]+")
_INSTRUCTIONS = frozenset(
    [
        "write",
        "give",
        "tell",
        "make",
        "create",
        "list",
        "explain",
        "describe",
        "summarize",
        "summarise",
        "translate",
        "show",
        "find",
        "do",
        "generate",
        "add",
        "use",
        "schreibe",
        "gib",
        "erkläre",
        "übersetze",
        "écris",
        "donne",
        "explique",
        "traduis",
        "escribe",
        "dame",
        "explica",
        "traduce",
        "scrivi",
        "dammi",
        "spiega",
        "escreva",
        "explique",
        "traduza",
        "schrijf",
        "geef",
        "leg",
        "vertaal",
    ]
)


class ContextSignals(msgspec.Struct, frozen=True, kw_only=True):
    """What monitors read. Shares and scores are in [0, 1]; lengths in characters and words.

    `repetition` is the share of four-word runs at the text's end that came before; `longest_run` the longest
    run of one character (0 below 32); `entropy` is in bits per character of the sample.
    """

    language: str
    certainty: float
    scripts: tuple[tuple[str, float], ...]
    characters: int
    words: int
    repetition: float
    longest_run: int
    entropy: float
    question_share: float
    instruction_share: float
    topics: tuple[tuple[str, float], ...] = ()


def signals_of(text: str, topics: Mapping[str, frozenset[str]] | None = None) -> ContextSignals:
    """The signals of a text; the cost is that of a few thousand characters, however long it is."""
    sample = text[:_SAMPLE]
    words = _WORD.findall(sample.lower())
    guess = guess_language(sample, words)
    sentences = [sentence for sentence in _SENTENCE.split(sample) if sentence.strip()]
    count = max(len(sentences), 1)
    openings = (sentence.split(None, 1)[0].lower().strip("\"'*-,:") for sentence in sentences)
    return ContextSignals(
        language=guess.language,
        certainty=round(guess.certainty, 4),
        scripts=guess.scripts,
        characters=len(text),
        words=len(words) if len(text) <= _SAMPLE else round(len(words) * len(text) / _SAMPLE),
        repetition=_repetition(text, words),
        longest_run=_longest_run(text[-_TAIL:]),
        entropy=_entropy(sample[:_ENTROPY_SAMPLE]),
        question_share=min(1.0, len(_QUESTION.findall(sample)) / count),
        instruction_share=sum(opening in _INSTRUCTIONS for opening in openings) / count,
        topics=_topics(words, topics) if topics else (),
    )


def _repetition(text: str, words: Sequence[str]) -> float:
    """The share of four-word runs at the end of the text that are there more than once."""
    tail = words if len(text) <= _TAIL else _WORD.findall(text[-_TAIL:].lower())
    if len(tail) < _LEAST_WORDS:
        return 0.0
    runs = list(zip(tail, tail[1:], tail[2:], tail[3:], strict=False))
    return round(1.0 - len(set(runs)) / len(runs), 4)


def _longest_run(tail: str) -> int:
    """The longest run of one character, 0 below 32; a step of 16 must meet the same character twice."""
    steps = tail[::16]
    if not any(map(str.__eq__, steps, steps[1:])):
        return 0
    return max((len(match.group()) for match in _RUN.finditer(tail)), default=0)


def _entropy(sample: str) -> float:
    if not sample:
        return 0.0
    total = len(sample)
    return round(-sum(n / total * math.log2(n / total) for n in Counter(sample).values()), 4)


def _topics(words: Sequence[str], topics: Mapping[str, frozenset[str]]) -> tuple[tuple[str, float], ...]:
    """How many words of the text a topic's examples hold, as a share of the words that any of them holds."""
    present = set(words)
    everything = frozenset().union(*topics.values())
    known = present & everything
    total = max(len(known), 3)
    return tuple((name, round(len(known & held) / total, 4)) for name, held in sorted(topics.items()))


class ContextDetector:
    """Reports signals as findings at severity info: language, repetition, length, topic.

    `languages` and `topics` say what the feature is for; a text in another language, or one that no topic's
    examples know, is a finding. Without them only repetition and length are reported.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS
    categories = ("context.language", "context.length", "context.repetition", "context.topic")

    def __init__(
        self, *, languages: frozenset[str], topics: Mapping[str, frozenset[str]], max_characters: int
    ) -> None:
        self._languages = languages
        self._topics = topics
        self._max_characters = max_characters
        shown = {name: sorted(words) for name, words in topics.items()}
        identity = digest([CODE_VERSION, profiles().digest, sorted(languages), shown, max_characters])
        self.version = f"{CODE_VERSION}+{short(identity)}"

    def signals(self, text: str) -> ContextSignals:
        """The record that monitors keep."""
        return signals_of(text, self._topics)

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """At most one finding of each kind, on the whole text."""
        text = detector_input.text
        found = self.signals(text)
        made = []
        loop = max(found.repetition, min(1.0, found.longest_run / 128))
        if loop >= _LEAST_REPETITION:
            made.append(("context.repetition", loop, f"{found.repetition:.0%} of its end came before"))
        if found.characters > self._max_characters:
            made.append(("context.length", 1.0, f"{found.characters} characters"))
        is_other = found.language not in (*self._languages, "und")
        if self._languages and is_other:
            made.append(("context.language", max(0.5, found.certainty), f"it speaks {found.language}"))
        if self._topics and found.words >= _LEAST_FOR_TOPIC:
            score = 1.0 - max(share for _, share in found.topics)
            if score >= 0.5:
                made.append(("context.topic", score, "few of its words belong to a topic of the feature"))
        return tuple(self._finding(name, score, reason, len(text)) for name, score, reason in made)

    def _finding(self, name: str, score: float, reason: str, size: int) -> Finding:
        return Finding(
            detector=ID, version=self.version, category=name, score=round(score, 4),
            location=Location(start=0, end=size), severity=category(name).severity, rule=name, reason=reason,
        )  # fmt: skip


_LEAST_REPETITION = 0.2
_LEAST_FOR_TOPIC = 5


def create(
    *,
    scanner: Scanner,
    languages: Sequence[str] = (),
    topics: Mapping[str, Sequence[str]] | None = None,
    max_characters: int = 100_000,
) -> ContextDetector:
    """The detector.

    Args:
        scanner: not used; every factory is given it.
        languages: codes (`en`, `de`) of the languages the feature speaks.
        topics: by name, example texts of what the feature is for.
        max_characters: a longer text is a finding.

    Raises:
        UsageError: for a language that is not known, or a topic without words.
    """
    file = profiles()
    known = {each for of in file.words.values() for each, _ in of} | set(file.scripts.values())
    unknown = sorted(set(languages) - known)
    if unknown:
        raise UsageError(f"context: unknown languages {unknown}.", hint=f"Known: {', '.join(sorted(known))}.")
    stop = set(file.words)
    words = {
        name: frozenset(
            w for text in texts for w in _WORD.findall(text.lower()) if len(w) > 2 and w not in stop
        )
        for name, texts in (topics or {}).items()
    }
    empty = [name for name, held in words.items() if not held]
    if empty:
        raise UsageError(f"context: topics {empty} have no words of their own.", hint="Give longer examples.")
    return ContextDetector(languages=frozenset(languages), topics=words, max_characters=max_characters)
