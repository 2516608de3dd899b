"""Detection quality per source: recall and false alarms with intervals, at a stated threshold.

    python bench/detection/quality.py [--format json] [--data ../shared/data]

Every figure names its detector version, its data (rows and digest of the file) and its threshold. Rows that
are absent are skipped with a reason. Train sources were used to write patterns and weights. Dev sources only
report, with the exceptions that docs/explanation/detectors.md names: how the refusal detector reads voices
was chosen on half A of its dev source (by hash of the row id), half B is the report.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stanchion.core.codec import digest_bytes, short
from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.origin import Origin
from stanchion.detectors.national_ids import checks, table
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views
from stanchion.stats.intervals import wilson

THRESHOLDS = {"secrets": 0.5, "pii": 0.5, "refusal": 0.6, "leakage": 0.5}
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
BENIGN = (
    "benign/banking77.train.jsonl.gz",
    "benign/clinc150.dev.jsonl.gz",
    "benign/llmail_emails.dev.jsonl",
    "benign/mtbench.dev.jsonl",
    "benign/self_instruct_human.train.jsonl",
    "benign/awesome_prompts.train.jsonl",
)

Row = dict[str, Any]


class Bench:
    """Detectors and data, and the table that comes out."""

    def __init__(self, data: Path) -> None:
        registry = Registry()
        self.detectors = {name: registry.create(name) for name in THRESHOLDS}
        self.data = data
        self.lines: list[dict[str, Any]] = []

    def findings(self, name: str, text: str) -> list[Finding]:
        given = DetectorInput(view_set=build_views(text), origin=Origin.UNKNOWN)
        found = self.detectors[name].detect(given)
        return [finding for finding in found if finding.score >= THRESHOLDS[name]]

    def rows(self, path: str) -> list[Row]:
        file = self.data / path
        if not file.exists():
            self.skip(path, f"{file} is absent")
            return []
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    def skip(self, source: str, reason: str) -> None:
        self.lines.append({"source": source, "skipped": reason})

    def add(self, name: str, source: str, measure: str, hits: int, n: int) -> None:
        if n == 0:
            return
        interval = wilson(hits, n)
        file = self.data / source
        self.lines.append({
            "detector": name, "version": self.detectors[name].version, "source": source, "measure": measure,
            "hits": hits, "n": n, "rate": hits / n, "low": interval.low, "high": interval.high,
            "threshold": THRESHOLDS[name],
            "data": short(digest_bytes(file.read_bytes())) if file.exists() else "generated",
        })  # fmt: skip

    def run(self) -> None:
        self.secrets()
        self.pii()
        self.national_ids()
        self.refusal()
        self.benign()

    def secrets(self) -> None:
        for source in (
            "secrets/synthetic.train.jsonl.gz",
            "secrets/gitleaks_rule_samples.dev.jsonl.gz",
            "secrets/detect_secrets_files.dev.jsonl.gz",
        ):
            rows = self.rows(source)
            self._by_label("secrets", source, rows, lambda row: bool(self.findings("secrets", row["text"])))
            if "gitleaks" in source:
                kept = [row for row in rows if not (row["label"] == 1 and not may_be_secret(row["text"]))]
                flagged = len(rows) - len(kept)
                self._by_label(
                    "secrets", source, kept, lambda row: bool(self.findings("secrets", row["text"])),
                    note=f" without {flagged} rows labelled 1 that are filler or too short",
                )  # fmt: skip

    def _by_label(
        self, name: str, source: str, rows: list[Row], fires: Callable[[Row], bool], *, note: str = ""
    ) -> None:
        fired = [(row["label"], fires(row)) for row in rows]
        for label, measure in ((1, "recall"), (0, "false alarms")):
            outcomes = [f for given, f in fired if given == label]
            self.add(name, source, measure + note, sum(outcomes), len(outcomes))

    def pii(self) -> None:
        for source in ("pii/presidio_templates_a.train.jsonl", "pii/presidio_templates_b.dev.jsonl"):
            counts = {entity: [0, 0, 0] for entity in ENTITIES}
            for row in self.rows(source):
                found = self.findings("pii", row["text"])
                for span in row["meta"]["spans"]:
                    if span["type"] in counts:
                        count = counts[span["type"]]
                        of_kind = [f for f in found if f.category == ENTITIES[span["type"]]]
                        count[0] += any(
                            f.location.start < span["end"] and span["start"] < f.location.end for f in of_kind
                        )
                        count[1] += any(
                            (f.location.start, f.location.end) == (span["start"], span["end"])
                            for f in of_kind
                        )
                        count[2] += 1
            structured = [sum(counts[entity][i] for entity in STRUCTURED) for i in range(3)]
            self.add("pii", source, "recall of structured kinds together", structured[0], structured[2])
            for entity, (found_any, exact, n) in counts.items():
                self.add("pii", source, f"recall of {entity}", found_any, n)
                self.add("pii", source, f"exact span of {entity}", exact, n)
        for source in ("pii/lookalikes_a.train.jsonl", "pii/lookalikes_b.dev.jsonl"):
            rows = self.rows(source)
            self.add(
                "pii",
                source,
                "false alarms",
                sum(bool(self.findings("pii", r["text"])) for r in rows),
                len(rows),
            )

    def national_ids(self) -> None:
        """Made-up numbers of every kind in the table, beside a word that names them."""
        found = n = 0
        missed = []
        for kind, text in synthetic_ids(seed=50, per_kind=20):
            is_found = any(f.category.startswith("pii.") for f in self.findings("pii", text))
            found, n = found + is_found, n + 1
            if not is_found:
                missed.append(kind)
        self.add("pii", f"generated: {len(table())} kinds, seed 50", "recall of national numbers", found, n)
        rng = random.Random(51)
        plain = [
            f"The value is {rng.randrange(10 ** (size - 1), 10**size)}."
            for size in range(7, 16)
            for _ in range(60)
        ]
        self.add("pii", "generated: digits without a word, seed 51", "false alarms",
                 sum(bool(self.findings("pii", text)) for text in plain), len(plain))  # fmt: skip

    def refusal(self) -> None:
        train = "refusal/xstest_completions.train.jsonl"
        self._by_label("refusal", train, self.rows(train), self._refuses)
        dev = "refusal/gptfuzz_labelled.dev.jsonl.gz"
        halves: tuple[list[Row], list[Row]] = ([], [])
        for row in self.rows(dev):
            halves[int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 2].append(row)
        for name, half in zip("AB", halves, strict=True):
            self._by_label("refusal", dev, half, self._refuses, note=f", half {name}")

    def _refuses(self, row: Row) -> bool:
        return bool(self.findings("refusal", row["text"]))

    def benign(self) -> None:
        for source in BENIGN:
            rows = self.rows(source)
            for name in ("secrets", "pii"):
                fired = sum(bool(self.findings(name, row["text"])) for row in rows)
                self.add(name, source, "rows with a finding", fired, len(rows))


def may_be_secret(text: str) -> bool:
    """False for a row that says that it is filler, or holds no run that a token could be."""
    if re.search(r"EXAMPLE|X{6}|x{6}|\bxxx|\*{4}|<[a-z_-]+>", text):
        return False
    return len(text) <= 1000 and bool(re.search(r"[^\s\"'`=:]{8,}", text)) and len(text) >= 14


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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2].parent / "shared" / "data")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"skipped: there is no data at {options.data}")
        return 0
    bench = Bench(options.data)
    bench.run()
    if options.format == "json":
        json.dump(bench.lines, sys.stdout, indent=1)
        return 0
    for line in bench.lines:
        if "skipped" in line:
            print(f"{line['source']}: skipped: {line['skipped']}")
            continue
        print(
            f"{line['detector']:8} {line['source']:46} {line['measure']:44} {line['rate']:7.2%}"
            f" [{line['low']:.2%}, {line['high']:.2%}] n={line['n']:<6} t={line['threshold']}"
            f" data={line['data']} v={line['version']}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
