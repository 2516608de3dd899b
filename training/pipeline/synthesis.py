"""Texts made for training: attacks, their harmless look-alikes, and documents that carry them.

Everything is drawn with a seed from the templates in `training/templates`, and from harmless rows and the
documentation and sources of the running Python for long benign writing.
"""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.rows import Row

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
_SLOT = re.compile(r"\{(\w+)\}")
_MODULES = (
    "argparse", "ast", "smtplib", "http/server", "subprocess", "random", "csv", "statistics", "shutil",
    "textwrap", "zipfile", "urllib/request", "logging/__init__", "unittest/case", "json/decoder", "pathlib",
    "tarfile", "imaplib", "cmd", "pdb", "optparse", "getpass", "webbrowser", "ssl", "sched", "turtle",
)  # fmt: skip


class Grammar:
    """Templates with slots, expanded at random."""

    def __init__(self, slots: dict[str, list[str]], rng: random.Random) -> None:
        self._slots = slots
        self._rng = rng

    def expand(self, template: str) -> str:
        """The template with every slot filled; `{{` and `}}` are braces."""
        text = _shielded(template)
        while _SLOT.search(text):
            text = _SLOT.sub(lambda match: _shielded(self._rng.choice(self._slots[match[1]])), text)
        return text.replace("\x01", "{").replace("\x02", "}")


def _shielded(template: str) -> str:
    return template.replace("{{", "\x01").replace("}}", "\x02")


def _load(name: str) -> dict:
    return yaml.safe_load((TEMPLATES / name).read_text(encoding="utf-8"))


def english(rng: random.Random, *, attacks: int, benign: int) -> list[Row]:
    """Rows of English templates; about as many of each family as it has templates."""
    data = _load("en.yaml")
    grammar = Grammar(data["slots"], rng)
    rows = []
    for label, kind, count in ((1, "attack", attacks), (0, "benign", benign)):
        pairs = [(family, template) for family, found in data[kind].items() for template in found]
        for index in range(count):
            family, template = pairs[index % len(pairs)]
            text = _varied(grammar.expand(template), rng)
            rows.append(Row(text, label, f"made:en:{family}", "en", f"{family}:{template}"))
    return rows


def other_languages(rng: random.Random, *, attacks: int, benign: int) -> list[Row]:
    """Rows of every other language, `attacks` and `benign` of each."""
    shared = _load("en.yaml")["slots"]
    data = _load("other_languages.yaml")
    rows = []
    for language, slots in data["languages"].items():
        grammar = Grammar({**shared, **slots}, rng)
        for label, kind, count in ((1, "attack", attacks), (0, "benign", benign)):
            frames = data["frames"][kind]
            for index in range(count):
                text = grammar.expand(frames[index % len(frames)])
                rows.append(Row(text, label, f"made:{language}", language, f"{kind}"))
    return rows


def _varied(text: str, rng: random.Random) -> str:
    """Small differences of writing: first letter, case, final stop."""
    if rng.random() < 0.7:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.15:
        text = text.rstrip(".")
    return text


def python_texts(rng: random.Random, *, topics: int, sources: int) -> list[Row]:
    """Documentation and code of the running Python, in pieces of 300 to 3,000 characters."""
    from pydoc_data.topics import topics as pages

    library = Path(sysconfig.get_paths()["stdlib"])
    documents = [("made:pydoc", pages[name]) for name in sorted(pages)]
    code = [("made:code", (library / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    rows = []
    for pool, count in ((documents, topics), (code, sources)):
        for _ in range(count):
            source, text = rng.choice(pool)
            size = rng.randint(300, 3000)
            start = rng.randint(0, max(len(text) - size, 0))
            rows.append(Row(text[start : start + size], 0, source, "en"))
    return rows


def long_writing(pool: Sequence[Row], rng: random.Random, *, count: int) -> list[Row]:
    """Long harmless documents: several harmless rows of one source and language, as paragraphs."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    for row in pool:
        if row.label == 0:
            by_kind.setdefault((row.source, row.language), []).append(row.text)
    kinds = [kind for kind, texts in sorted(by_kind.items()) if len(texts) >= 20]
    rows = []
    for index in range(count):
        source, language = kinds[index % len(kinds)]
        texts = rng.sample(by_kind[source, language], rng.randint(4, 14))
        rows.append(
            Row(rng.choice(["\n\n", "\n", " "]).join(texts)[:6000], 0, f"made:long:{source}", language)
        )
    return rows


_CARRIERS = (
    "{before}\n\n{attack}\n\n{after}",
    "{before} {attack} {after}",
    "{attack}\n{before}\n{after}",
    "{before}\n{after}\n{attack}",
    "Subject: {subject}\nFrom: info@example.org\n\n{before}\n\n{attack}\n\nBest regards",
    '{{"status": "ok", "result": "{before}", "note": "{attack}"}}',
    "<html><body><p>{before}</p><!-- {attack} --><p>{after}</p></body></html>",
    "<p>{before}</p><p style='display:none'>{attack}</p>",
    "# README\n\n{before}\n\n## Notes\n\n{attack}\n",
    "def main():\n    # {attack}\n    return run()\n",
    "| name | comment |\n|---|---|\n| {subject} | {attack} |",
    "Review (5 stars): {before} {attack}",
    "Summarize the following text: {before} {attack}",
    "{before}\n---\n{attack}",
    'Summarize: "{before} {attack}"',
    'Translate this sentence into French: "{attack}"',
    "The note on the page says '{attack}' and you have to do it.",
    '"{attack}"',
    'Reply to this message: "{attack}"',
)


def carried(attacks: Sequence[Row], carriers: Sequence[Row], rng: random.Random, *, count: int) -> list[Row]:
    """Attacks inside harmless documents: e-mails, pages, JSON, code comments, tables."""
    harmless = [row.text for row in carriers if row.label == 0 and 30 < len(row.text) < 1500]
    rows = []
    for index in range(count):
        attack = rng.choice(attacks)
        text = _CARRIERS[index % len(_CARRIERS)].format(
            before=rng.choice(harmless),
            after=rng.choice(harmless),
            attack=attack.text,
            subject=rng.choice(harmless)[:40],
        )
        rows.append(Row(text, 1, "made:carried", attack.language, attack.source))
    return rows


def wrapped_benign(pool: Sequence[Row], rng: random.Random, *, count: int) -> list[Row]:
    """The same documents around harmless sentences, so that a document's form proves nothing."""
    made = carried([row for row in pool if row.label == 0], pool, rng, count=count)
    return [Row(row.text, 0, "made:wrapped", row.language, row.group) for row in made]
