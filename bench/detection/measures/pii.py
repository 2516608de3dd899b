"""Personal data: labelled spans, look-alikes without any, and made-up national numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from figures import Figure, Measured, Row, Skipped, Source, findings, generated, read_source

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
