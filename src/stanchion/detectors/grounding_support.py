"""How well sources carry a sentence: a handful of numbers from words, facts and order, and their weighing.

Lexical: it sees whether the words, figures and names of a sentence stand together in the sources, in that
order and with the same negation. It does not understand; a true paraphrase in other words looks unsupported,
and a sentence made of the source's own words in a false arrangement can look supported.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.errors import IntegrityError, JudgementError
from stanchion.core.resources import read_data_bytes
from stanchion.detectors.grounding_claims import Facts, all_facts, claims_in
from stanchion.detectors.grounding_lexicon import lexicon
from stanchion.detectors.grounding_text import (
    Sentence,
    is_content,
    sentences_of,
    stem,
    without_hedges,
    words_of,
)

FEATURE_VERSION = 1
FEATURES = (
    "covered", "covered_nearby", "covered_characters", "pairs", "order", "ending_covered", "missing_share",
    "facts_missing", "names_missing", "negation_differs", "reversed", "contradicts",
)  # fmt: skip
_GRAM = 5
_SYNONYM = 0.75  # what a word counts that is only there by another of the same meaning
_FAMILY = 0.6  # what a word counts whose first five letters are there
_UNKNOWN_IDF = 1.0
MOST_SOURCE = 1_000_000  # characters of all sources together; more is a failed check
_SAME_MATTER = 0.4  # from this share of its words on, a source sentence speaks of the same thing
_SAME_WORDS = 0.8  # and from this share on it says the same, or the opposite
_MOST_PLACES = 1000  # of the words of one sentence in the sources, rare words first, that are looked up
_NEAREST = 12  # source sentences looked at closely


class Sources(NamedTuple):
    """The sources in the shapes that sentences are compared with."""

    stems: frozenset[str]
    prefixes: frozenset[str]
    grams: frozenset[str]
    sentences: tuple[tuple[str, ...], ...]
    raw: tuple[frozenset[str], ...]
    texts: tuple[str, ...]
    words: frozenset[str]
    by_stem: Mapping[str, tuple[int, ...]]
    facts: Facts


class SupportModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights by feature, rarity by stem, and how a logit becomes a score.

    `threshold` is the logit at which a score is 0.5, frozen on the calibration half of the development data.
    `rarity` holds inverse document frequencies in [0, 1], rounded; a stem that is not listed is as rare as
    can be.
    """

    name: str
    version: str
    feature_version: int
    data_digest: str
    bias: float
    weights: dict[str, float]
    slope: float
    threshold: float
    rarity: dict[str, float]

    def logit(self, features: Sequence[float]) -> float:
        """The weighted sum; higher is less supported."""
        return self.bias + sum(self.weights[n] * v for n, v in zip(FEATURES, features, strict=True))

    def score(self, logit: float) -> float:
        """How sure it is that the sentence is not supported, in [0, 1]."""
        argument = self.slope * (logit - self.threshold)
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, argument))))


@lru_cache(maxsize=1)
def packaged_model() -> tuple[SupportModel, str]:
    """The model of `data/weights/grounding.json` and the digest of the file."""
    raw = read_data_bytes("weights", "grounding.json")
    model = msgspec.json.decode(raw, type=SupportModel)
    if model.feature_version != FEATURE_VERSION or set(model.weights) != set(FEATURES):
        raise IntegrityError(
            "the weights of the grounding detector were made for other features than its code."
        )
    return model, digest_bytes(raw)


@lru_cache(maxsize=32)
def read_sources(documents: tuple[str, ...]) -> Sources:
    """The texts that claims must be in, read for comparison.

    Raises:
        JudgementError: when they have more than `MOST_SOURCE` characters together.
    """
    size = sum(map(len, documents))
    if size > MOST_SOURCE:
        raise JudgementError(
            f"grounding: {size:,} characters of documents, question and system prompt are more than the "
            f"{MOST_SOURCE:,} that are compared.",
            hint="Give the check the passages that the answer was made from.",
        )
    sentences: list[tuple[str, ...]] = []
    raw: list[frozenset[str]] = []
    texts: list[str] = []
    by_stem: dict[str, list[int]] = defaultdict(list)
    for document in documents:
        for sentence in sentences_of(document):
            stems = content_stems(sentence.words)
            for each in set(stems):
                by_stem[each].append(len(sentences))
            sentences.append(tuple(stems))
            raw.append(frozenset(sentence.words))
            texts.append(document[sentence.start : sentence.end])
    stems_there = frozenset(by_stem)
    return Sources(
        stems=stems_there,
        prefixes=frozenset(s[:5] for s in stems_there if len(s) >= 6),
        grams=frozenset(gram for document in documents for gram in _grams(words_of(document))),
        sentences=tuple(sentences),
        raw=tuple(raw),
        texts=tuple(texts),
        words=frozenset().union(*raw),
        by_stem={each: tuple(places) for each, places in by_stem.items()},
        facts=all_facts(documents),
    )


def content_stems(words: Iterable[str]) -> list[str]:
    """The stems of the words that carry meaning, in order."""
    return [stem(word) for word in words if is_content(word)]


def features_of(
    text: str, sentence: Sentence, sources: Sources, rarity: Mapping[str, float]
) -> tuple[float, ...]:
    """The numbers of `FEATURES`, all in [0, 1]."""
    words = without_hedges(sentence.words)
    stems = (
        content_stems(words)
        or content_stems(sentence.words)
        or [stem(words[-1] if words else sentence.words[-1])]
    )
    weight = {each: rarity.get(each, _UNKNOWN_IDF) for each in stems}
    total = sum(weight[each] for each in stems) or 1.0
    body = text[sentence.start : sentence.end]
    facts = claims_in(body)
    lost = [claim for claim in facts if not sources.facts.support(claim)]
    unsaid = {claim.start for claim in lost}
    carried = {
        s for c in facts if c.start not in unsaid for s in content_stems(words_of(body[c.start : c.end]))
    }
    there = {each: 1.0 if each in carried else _presence(each, sources) for each in weight}
    covered = sum(weight[each] * there[each] for each in stems) / total
    nearest, nearby = _nearest(stems, weight, sources)
    missing = {each for each in stems if there[each] < _FAMILY}
    best = sources.sentences[nearest] if nearest is not None else ()
    best_words = sources.raw[nearest] if nearest is not None else frozenset()
    grams = list(_grams(words))
    gram_share = sum(gram in sources.grams for gram in grams) / len(grams) if grams else covered
    names = [claim for claim in facts if claim.kind == "name"]
    negates, denied = (bool(lexicon().negations & set(each)) for each in (words, best_words))
    return (
        covered,
        nearby / total,
        gram_share,
        _pairs(stems, best),
        _in_order(stems, best),
        sum(there[each] for each in stems[-2:]) / len(stems[-2:]),
        sum(weight[each] for each in stems if each in missing) / total,
        float(any(claim.kind != "name" for claim in lost)),
        sum(claim.kind == "name" for claim in lost) / len(names) if names else 0.0,
        float(nearby / total >= _SAME_MATTER and negates != denied),
        float(nearby / total >= _SAME_WORDS and negates != denied),
        float(_contradicts(missing, best)),
    )


def nearest_text(sentence: Sentence, sources: Sources) -> str:
    """A premise for an entailment model: the sentence that carries most words, and its neighbours."""
    stems = content_stems(sentence.words)
    place, _ = _nearest(stems, dict.fromkeys(stems, 1.0), sources)
    if place is None:
        return " ".join(sources.texts[:3])
    return " ".join(sources.texts[max(0, place - 1) : place + 2])


def _presence(each: str, sources: Sources) -> float:
    if each in sources.stems:
        return 1.0
    if any(stem(other) in sources.stems for other in _synonyms().get(each, ())):
        return _SYNONYM
    return _FAMILY if len(each) >= 6 and each[:5] in sources.prefixes else 0.0


def _nearest(stems: Sequence[str], weight: Mapping[str, float], sources: Sources) -> tuple[int | None, float]:
    """The source sentence that carries most of the words, and what it and its neighbour carry together."""
    votes: dict[int, float] = defaultdict(float)
    counts = Counter(stems)
    left = _MOST_PLACES
    by_rarity = sorted(counts.items(), key=lambda item: (len(sources.by_stem.get(item[0], ())), item[0]))
    for each, count in by_rarity:
        others = (stem(other) for other in _synonyms().get(each, ()))
        places = sources.by_stem.get(each) or next(
            (sources.by_stem[o] for o in others if o in sources.by_stem), ()
        )
        factor = 1.0 if each in sources.by_stem else _SYNONYM
        for place in places[:left]:
            votes[place] += weight[each] * factor * count
        left = max(left - len(places), 0)
    if not votes:
        return None, 0.0
    top = sorted(votes.items(), key=lambda item: (-item[1], item[0]))[:_NEAREST]
    best, most = top[0][0], 0.0
    for place, _ in top:
        for pair in ((place, place + 1), (place - 1, place)):
            held = {s for p in pair if 0 <= p < len(sources.sentences) for s in sources.sentences[p]}
            carried = sum(
                weight[each] * (1.0 if each in held else _SYNONYM if _by_synonym(each, held) else 0.0)
                for each in stems
            )
            if carried > most + 1e-9:
                best, most = place, carried
    return best, most


def _by_synonym(each: str, held: set[str]) -> bool:
    return any(stem(other) in held for other in _synonyms().get(each, ()))


def _pairs(stems: Sequence[str], best: Sequence[str]) -> float:
    """The share of neighbouring words that also stand near each other in the source, in the same order."""
    if len(stems) < 2:
        return float(bool(stems) and stems[0] in best)
    near = {(a, b) for i, a in enumerate(best) for b in best[i + 1 : i + 4]}
    return sum(pair in near for pair in pairwise(stems)) / (len(stems) - 1)


def _in_order(stems: Sequence[str], best: Sequence[str]) -> float:
    """Of the words found in the source sentence, the share that keep their order (longest increasing run)."""
    place = {each: i for i, each in reversed(list(enumerate(best)))}
    seen = [place[each] for each in stems if each in place][:60]
    if len(seen) < 2:
        return 1.0
    longest = [1] * len(seen)
    for i, here in enumerate(seen):
        longest[i] += max((longest[j] for j in range(i) if seen[j] <= here), default=0)
    return max(longest) / len(seen)


def _contradicts(missing: Iterable[str], best: Sequence[str]) -> bool:
    held = set(best)
    return any(not _antonyms().get(each, frozenset()).isdisjoint(held) for each in missing)


@lru_cache(maxsize=1)
def _antonyms() -> Mapping[str, frozenset[str]]:
    return {stem(word): frozenset(map(stem, others)) for word, others in lexicon().antonyms.items()}


@lru_cache(maxsize=1)
def _synonyms() -> Mapping[str, frozenset[str]]:
    merged: dict[str, frozenset[str]] = {}
    for word, others in lexicon().synonyms.items():
        merged[stem(word)] = merged.get(stem(word), frozenset()) | frozenset(map(stem, others))
    return merged


def _grams(words: Iterable[str]) -> Iterable[str]:
    """Overlapping runs of five letters or digits inside the running text, function words left out."""
    joined = " ".join(word for word in words if is_content(word))
    return (joined[i : i + _GRAM] for i in range(len(joined) - _GRAM + 1))
