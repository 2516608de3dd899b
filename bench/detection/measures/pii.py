"""Personal data: labelled spans, look-alikes without any, and made-up national numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from figures import Figure, Measured, Row, Skipped, Source, findings, generated, read_source
from made.personal import COUNTRIES, addresses, everyday, said_data, telephones

from stanchion.detectors.national_ids import checks, table

PII = Measured(detector="pii", threshold=0.5)
ENTITIES = {
    "EMAIL_ADDRESS": "pii.email",
    "CREDIT_CARD": "pii.card",
    "IBAN_CODE": "pii.iban",
    "IP_ADDRESS": "pii.ip",
    "US_SSN": "pii.national_id",
    "US_DRIVER_LICENSE": "pii.driver_licence",
    "PHONE_NUMBER": "pii.phone",
    "ADDRESS": "pii.address",
    "STREET_ADDRESS": "pii.address",
    "PERSON": "pii.person",
}
SEED = 41
STRUCTURED = ("EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN")
GOALS = {"structured": ">= 99 %", "PHONE_NUMBER": ">= 90 %", "US_SSN": ">= 90 %", "alarms": "<= 2 %"}


def figures(data: Path) -> Iterator[Figure | Skipped]:
    for source, note in (
        ("pii/presidio_templates_a.train.jsonl", "train"),
        ("pii/presidio_templates_b.dev.jsonl", "dev"),
    ):
        yield from spans(read_source(data, source), note)
    for source, note in (("pii/lookalikes_a.train.jsonl", "train"), ("pii/lookalikes_b.dev.jsonl", "dev")):
        yield from PII.by_label(read_source(data, source), note=note, goals=("", GOALS["alarms"]))
    yield from national_ids()
    yield from made()


def made() -> Iterator[Figure | Skipped]:
    """Telephone numbers, addresses and data that a word names, in the writing of their countries."""
    rows: list[Row] = [
        {
            "text": text,
            "kind": f"{style}, {'beside a word' if is_said else 'without a word'}",
            "said": is_said,
        }
        for _, style, text, is_said in telephones(seed=SEED, each=40)
    ]
    source = generated(f"telephone numbers of {len(COUNTRIES)} countries, seed {SEED}", rows)
    for name, is_said, goal in (("beside a word", True, ">= 90 %"), ("without a word", False, "")):
        kept = source.where(lambda row, wanted=is_said: row["said"] is wanted)
        yield from _of_category(kept, f"recall, {name}", "pii.phone", goal=goal)
    for kind in sorted({row["kind"] for row in rows}):
        kept = source.where(lambda row, wanted=kind: row["kind"] == wanted)
        yield from _of_category(kept, f"recall, {kind}", "pii.phone")
    data = [(kind, category, text) for kind, category, text in said_data(seed=SEED, each=100)]
    source = generated(f"data that a word names, seed {SEED}", [{"kind": k, "text": t} for k, _, t in data])
    for kind, category in dict.fromkeys((kind, category) for kind, category, _ in data):
        kept = source.where(lambda row, wanted=kind: row["kind"] == wanted)
        yield from _of_category(kept, f"recall, {kind}", category, goal=">= 90 %")
    streets = [{"country": country, "text": text} for country, text in addresses(seed=SEED, each=20)]
    source = generated(
        f"street addresses of {len({r['country'] for r in streets})} countries, seed {SEED}", streets
    )
    yield from _of_category(source, "recall", "pii.address")
    numbers = [{"kind": kind, "text": text} for kind, text in everyday(seed=SEED, each=40)]
    source = generated(f"everyday numbers of {len({r['kind'] for r in numbers})} kinds, seed {SEED}", numbers)
    yield from PII.figure(
        source, "false alarms", map(PII.fires, source.rows), note="synthetic", goal="<= 2 %"
    )


def _of_category(
    source: Source, measure: str, category: str, *, goal: str = ""
) -> Iterator[Figure | Skipped]:
    hits = [
        any(f.category == category for f in findings("pii", row["text"], threshold=PII.threshold))
        for row in source.rows
    ]
    yield from PII.figure(source, measure, hits, note="synthetic", goal=goal)


def spans(source: Source, note: str) -> Iterator[Figure | Skipped]:
    """Recall of labelled spans by kind: any overlap, and to the character."""
    touched: dict[str, list[bool]] = {entity: [] for entity in ENTITIES}
    exact: dict[str, list[bool]] = {entity: [] for entity in ENTITIES}
    for row in source.rows:
        found = findings("pii", row["text"], threshold=PII.threshold)
        for span in row["meta"]["spans"]:
            if span["type"] in ENTITIES:
                places = [
                    (f.location.start, f.location.end) for f in found if f.category == ENTITIES[span["type"]]
                ]
                touched[span["type"]].append(any(a < span["end"] and span["start"] < b for a, b in places))
                exact[span["type"]].append((span["start"], span["end"]) in places)
    together = [hit for entity in STRUCTURED for hit in touched[entity]]
    yield from PII.figure(
        source, "recall of structured kinds together", together, note=note, goal=GOALS["structured"]
    )
    for entity in ENTITIES if not source.absent else ():
        goal = GOALS.get(entity, "")
        yield from PII.figure(source, f"recall of {entity}", touched[entity], note=note, goal=goal)
        yield from PII.figure(source, f"exact span of {entity}", exact[entity], note=note)


def national_ids() -> Iterator[Figure | Skipped]:
    """Made-up numbers of every kind in the table, beside a word that names them; digits beside none."""
    rows: list[Row] = [{"kind": kind, "text": text} for kind, text in synthetic_ids(seed=50, per_kind=20)]
    source = generated(f"national numbers of {len(table())} kinds beside a word, seed 50", rows)
    yield from PII.figure(source, "recall", map(PII.fires, source.rows), note="synthetic", goal=">= 90 %")
    rng = random.Random(51)
    plain = generated(
        "digits without a word, seed 51",
        (
            {"text": f"The value is {rng.randrange(10 ** (size - 1), 10**size)}."}
            for size in range(7, 16)
            for _ in range(60)
        ),
    )
    yield from PII.figure(plain, "false alarms", map(PII.fires, plain.rows), note="synthetic", goal="<= 2 %")


def synthetic_ids(*, seed: int, per_kind: int) -> Iterator[tuple[str, str]]:
    """Numbers that hold their check, found by drawing; each with one of the words that name its kind."""
    rng = random.Random(seed)
    known = checks()
    for entry in table():
        made = 0
        for _ in range(400_000):
            if made == per_kind:
                break
            number = _drawn(entry.id, entry.digits, entry.shape, rng)
            if number and known[entry.check](number):
                made += 1
                yield entry.id, f"{rng.choice(entry.words)}: {number}"


def _drawn(kind: str, lengths: tuple[int, ...], shape: str, rng: random.Random) -> str:
    if shape:
        return _from_shape(shape, rng)
    digits = "".join(rng.choice("0123456789") for _ in range(rng.choice(lengths)))
    year, month, day = rng.randrange(50, 99), rng.randrange(1, 13), rng.randrange(1, 28)
    if kind == "cn_ric":
        return f"110101{1900 + year}{month:02d}{day:02d}{digits[14:]}"
    return f"756{digits[3:]}" if kind == "ch_ssn" else digits


def _from_shape(shape: str, rng: random.Random) -> str:
    """A text of a simple form: classes, fixed repeats, options and alternatives."""
    from re import _parser  # the standard library's own reader of expressions

    def text_of(nodes: Iterable[Any]) -> str:
        out = ""
        for operation, argument in nodes:
            match str(operation):
                case "LITERAL":
                    out += chr(argument)
                case "IN":
                    out += rng.choice(_members(argument))
                case "MAX_REPEAT":
                    low, high, inner = argument
                    out += "".join(text_of(inner) for _ in range(rng.randint(low, high)))
                case "SUBPATTERN":
                    out += text_of(argument[3])
                case "BRANCH":
                    out += text_of(rng.choice(argument[1]))
        return out

    return text_of(_parser.parse(shape))


def _members(items: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for operation, argument in items:
        match str(operation):
            case "LITERAL":
                found.append(chr(argument))
            case "RANGE":
                found.extend(map(chr, range(argument[0], argument[1] + 1)))
            case "CATEGORY":
                found.extend("0123456789")
    return found
