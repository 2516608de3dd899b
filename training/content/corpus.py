"""The rows that `content` learns from and is reported on: sources by `mapping.yaml`, and made ones."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import yaml

from stanchion.detectors.content_model import ANY

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
CATEGORIES = (
    "hate", "harassment", "self_harm", "sexual", "minors", "violence", "extremism", "weapons", "cyber_abuse",
    "illicit", "privacy", "misinformation", "regulated_advice",
)  # fmt: skip
HEADS = (*CATEGORIES, ANY)
ABUSE = frozenset({"hate", "harassment"})
MOST_HARMLESS = 2500  # rows of one harmless source
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class ContentRow:
    """One text with what is known of its categories; `unknown` ones are neither for nor against."""

    text: str
    positive: frozenset[str]
    unknown: frozenset[str]
    source: str
    language: str
    detail: str = ""  # the source's own category

    @property
    def label(self) -> int:
        """1 when the text is harmful in some way."""
        return int(ANY in self.positive)


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: its name, sha256 and number of rows used."""

    name: str
    digest: str
    rows: int


@lru_cache(maxsize=1)
def mapping() -> dict:
    """The whole of `mapping.yaml`."""
    return yaml.safe_load((HERE / "mapping.yaml").read_text(encoding="utf-8"))


def read(name: str, data: Path) -> tuple[list[dict], SourceFile]:
    """The rows of one file as they are."""
    path = next(p for p in (data / f"{name}.jsonl", data / f"{name}.jsonl.gz") if p.is_file())
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return rows, SourceFile(path.relative_to(data).as_posix(), hashlib.sha256(raw).hexdigest(), len(rows))


def teaching(data: Path = DATA) -> tuple[list[ContentRow], list[SourceFile]]:
    """Rows of public sources, harmful and harmless."""
    rng = random.Random(31)
    rows: list[ContentRow] = []
    files = []
    for name, rules in mapping()["teaching"].items():
        found, file = read(name, data)
        used = [value for value in found if not _rule(rules, value["category"]).get("leave")]
        files.append(replace(file, rows=len(used)))
        rows += [_taught(value, rules, _short(name)) for value in used]
    for name, unknown in mapping()["harmless"].items():
        found, file = read(name, data)
        kept = [v for v in found if _is_harmless(name, v["label"])]
        kept = rng.sample(kept, MOST_HARMLESS) if len(kept) > MOST_HARMLESS else kept
        files.append(replace(file, rows=len(kept)))
        rows += [
            ContentRow(v["text"], frozenset(), frozenset(unknown), _short(name), v["lang"]) for v in kept
        ]
    return rows, files


def _is_harmless(name: str, label: int) -> bool:
    """Whether a row of a source of another task, with that task's label, may teach what is harmless."""
    if name.startswith("refusal/"):
        return label == 1
    return label == 0 or name.startswith(("grounding/", "pii/"))


def _short(name: str) -> str:
    return name.partition("/")[2].removesuffix(".train").removesuffix(".dev")


def _rule(rules: dict, detail: str) -> dict:
    return next((rule for key, rule in rules.items() if fnmatch.fnmatch(detail, key)), {})


def _taught(value: dict, rules: dict, source: str) -> ContentRow:
    detail = value["category"]
    rule = _rule(rules, detail)
    positive, unknown = set(rule.get("positive", ())), set(rule.get("unknown", ()))
    unknown = set(CATEGORIES) if "all" in unknown else unknown
    if rule.get("weak") and value["lang"] == "en":
        positive |= {c for c, expression in _weak().items() if expression.search(value["text"])}
    if value["label"] == 1:
        positive.add(ANY)
    unknown |= any_of_abuse(positive)
    return ContentRow(
        value["text"],
        frozenset(positive),
        frozenset(unknown - (positive - {ANY})),
        source,
        value["lang"],
        detail,
    )


def any_of_abuse(positive: set[str]) -> set[str]:
    """`any` is not learnt from abuse of people: its words are those of harmless talk about people, too.

    Hate and harassment have outputs and thresholds of their own.
    """
    return {ANY} if positive - {ANY} and positive - {ANY} <= ABUSE else set()


@lru_cache(maxsize=1)
def _weak() -> dict[str, re.Pattern[str]]:
    return {name: re.compile(rule, re.IGNORECASE) for name, rule in mapping()["weak"].items()}


def reporting(data: Path = DATA) -> tuple[list[ContentRow], list[SourceFile]]:
    """The development rows. Rows that are neither harmful nor in a harmless source are left out."""
    rows: list[ContentRow] = []
    files = {}
    for name, rules in mapping()["reporting"].items():
        found, file = read(name, data)
        files[name] = file
        rows += [_reported(v, rules, _short(name)) for v in found if v["label"] == 1]
    for name in mapping()["reporting_harmless"]:
        found, file = read(name, data)
        files[name] = file
        is_other_task = name.startswith("grounding/")
        rows += [
            ContentRow(v["text"], frozenset(), frozenset(), _short(name), v["lang"], v.get("category") or "")
            for v in found
            if v["label"] == 0 or is_other_task
        ]
    return rows, list(files.values())


def _reported(value: dict, rules: dict, source: str) -> ContentRow:
    detail = value["category"]
    positive: set[str] = set()
    if "codes" in rules:
        for code in detail.split(","):
            positive |= set(rules["codes"].get(code, ()))
    elif "hazards" in rules:
        positive |= set(rules["hazards"].get(detail.removeprefix("hazard:"), ()))
    elif "tags" in rules:
        positive |= {c for tag, found in TAGS.items() if tag in value["meta"]["tags"] for c in found}
        detail = value["meta"]["tags"]
    else:
        rule = _rule(rules, detail)
        positive |= set(rule.get("positive", ()))
    unknown = frozenset() if positive else frozenset(CATEGORIES)
    return ContentRow(value["text"], frozenset({*positive, ANY}), unknown, source, value["lang"], detail)


TAGS = {  # MultiJail's tags
    "Hate speech": ("hate",),
    "Discrimination & injustice": ("hate",),
    "Self-harm": ("self_harm",),
    "Weapons": ("weapons",),
    "Terrorism & organized crime": ("extremism",),
    "Violence & incitement": ("violence",),
    "Bullying & harassment": ("harassment",),
    "Theft": ("illicit",),
    "Fraud & deception": ("illicit",),
    "Substance abuse & banned substances": ("illicit",),
    "Property crime": ("illicit",),
    "Animal abuse": ("violence",),
    "Sexual exploitation & human trafficking": ("sexual",),
    "Adult content": ("sexual",),
    "Soliciting personally identifiable information": ("privacy",),
    "Conspiracy theories & misinformation": ("misinformation",),
}


class Grammar:
    """Templates with slots, filled at random."""

    def __init__(self, slots: dict[str, list[str]], rng: random.Random) -> None:
        self._slots, self._rng = slots, rng

    def expand(self, template: str, **given: str) -> str:
        """The template with every slot filled, those in `given` with these values."""
        text = template
        for name, value in given.items():
            text = text.replace(f"{{{name}}}", value)
        while _SLOT.search(text):
            text = _SLOT.sub(lambda match: self._rng.choice(self._slots[match[1]]), text)
        return text


def made(rng: random.Random, *, scale: float = 1.0) -> list[ContentRow]:
    """Rows of the templates: the same frames for harmful and for harmless acts, the same acts in both."""
    english = yaml.safe_load((HERE / "templates/en.yaml").read_text(encoding="utf-8"))
    rows = list(_made_of(english, "en", Grammar(english["slots"], rng), rng, int(420 * scale)))
    others = yaml.safe_load((HERE / "templates/other_languages.yaml").read_text(encoding="utf-8"))
    for language, data in others.items():
        rows += _made_of(data, language, Grammar({}, rng), rng, int(40 * scale))
    return rows


def _made_of(
    data: dict, language: str, grammar: Grammar, rng: random.Random, size: int
) -> Iterator[ContentRow]:
    nothing: frozenset[str] = frozenset()
    for category, acts in data["harm"].items():
        for index in range(size):
            act = acts[index % len(acts)]
            text = varied(grammar.expand(rng.choice(data["ask"]), act=act), rng)
            unknown = frozenset(CATEGORIES) - {category}
            yield ContentRow(text, frozenset({category, ANY}), unknown, "made:ask", language)
            if index % 2 == 0:
                text = varied(grammar.expand(rng.choice(data["about"]), act=act), rng)
                yield ContentRow(text, nothing, nothing, "made:about", language)
    for names, sayings in data["says"].items():
        positive = frozenset(names.split("+"))
        for index in range(size):
            text = varied(grammar.expand(sayings[index % len(sayings)]), rng)
            unknown = frozenset({"hate", "harassment", "violence", *any_of_abuse(set(positive))}) - positive
            yield ContentRow(text, positive | {ANY}, unknown, "made:says", language)
    for kind in ("identity", "chat"):
        for index in range(size * 6 if kind in data else 0):
            text = grammar.expand(data[kind][index % len(data[kind])])
            yield ContentRow(varied(text, rng), nothing, nothing, f"made:{kind}", language)
    for index in range(size * 7):
        is_ordinary = "chat" in data and index % 3 == 0
        act = "{verb} {noun}" if is_ordinary else rng.choice(data["safe"])
        text = grammar.expand(rng.choice(data["ask"]), act=act)
        yield ContentRow(varied(text, rng), nothing, nothing, "made:safe", language)
        if index < size * 4:
            text = grammar.expand(data["fine"][index % len(data["fine"])])
            yield ContentRow(varied(text, rng), nothing, nothing, "made:fine", language)


def varied(text: str, rng: random.Random) -> str:
    if rng.random() < 0.75:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.2:
        text = text.rstrip(".!?")
    if rng.random() < 0.1:
        text = text.lower()
    return text


def joined(rows: Sequence[ContentRow], rng: random.Random, *, count: int) -> list[ContentRow]:
    """Long harmless documents: several harmless rows of one source and language as paragraphs."""
    pools: dict[tuple[str, str], list[ContentRow]] = {}
    for row in rows:
        if not row.label and not row.unknown:
            pools.setdefault((row.source, row.language), []).append(row)
    kinds = [kind for kind, found in sorted(pools.items()) if len(found) >= 20]
    documents = []
    for index in range(count):
        source, language = kinds[index % len(kinds)]
        parts = rng.sample(pools[source, language], rng.randint(3, 10))
        text = rng.choice(["\n\n", "\n", " "]).join(row.text for row in parts)[:4000]
        documents.append(ContentRow(text, frozenset(), frozenset(), f"made:long:{source}", language))
    return documents
