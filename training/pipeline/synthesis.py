"""Texts made for training: attacks, their harmless look-alikes, and documents that carry them.

Everything is drawn with a seed from the templates in `training/templates` and from harmless rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pipeline.grammar import Grammar, alternatives, load
from pipeline.mutators import misspelt
from pipeline.rows import Row

_SHARED = ("en/vocabulary.yaml", "en/contexts.yaml")
_ATTACKS = ("override", "leaks", "personas", "structures", "pressure", "orders")
_MORE_LANGUAGES = (
    "other_languages_more.yaml",
    "direct.yaml",
    "coding.yaml",
    "other_languages_pairs.yaml",
    "other_languages_orders.yaml",
)
_EMPHASISED = {
    "coding.yaml": "coding",
    "other_languages_pairs.yaml": "pair",
    "other_languages_orders.yaml": "order",
}
_HARMLESS = ("innocent", "about", "people", "daily", "twins")


def families(rng: random.Random, *, attacks: int, benign: int) -> list[Row]:
    """English rows of the grammars in `templates/en`: of each kind a share by the root of its templates.

    Documents are twins: the same frames carry an injection or a message like any other, so that a frame
    tells nothing.
    """
    rows = []
    for label, files, count in ((1, _ATTACKS, attacks), (0, _HARMLESS, benign)):
        grammars = [load(*_SHARED, f"en/{name}.yaml") for name in files]
        kinds = [(kind, found, data) for data in grammars for kind, found in data["families"].items()]
        shares = [len(found) ** 0.5 for _, found, _ in kinds]
        document = 0.3 * sum(shares)
        for (kind, found, data), share in zip(kinds, shares, strict=True):
            quoted = _Quoted(rng) if kind == "about" else None
            wanted = round(count * share / (sum(shares) + document))
            rows += _expanded(Grammar(data["slots"], rng), kind, found, label, wanted, rng, quoted)
        wanted = round(count * document / (sum(shares) + document))
        rows += documents(rng, label, wanted)
    return rows


def _expanded(
    grammar: Grammar, kind: str, found: Sequence[str], label: int, count: int, rng: random.Random, quoted
) -> list[Row]:
    rows = []
    for index in range(count):
        template = found[index % len(found)]
        text = grammar.expand(template)
        if quoted is not None:
            text = quoted.filled(text)
        text = _varied(text, rng)
        if len(text) > 2:
            rows.append(Row(text, label, f"made:en:{kind}", "en", f"{kind}:{template}", kind))
    return rows


class _Quoted:
    """Fills `@ATTACK@` with an attack of any family: what harmless texts about attacks quote."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._found = []
        for name in _ATTACKS:
            data = load(*_SHARED, f"en/{name}.yaml")
            grammar = Grammar(data["slots"], rng)
            self._found += [(grammar, one) for found in data["families"].values() for one in found]

    def attack(self, longest: int = 400) -> str:
        """One attack of at most so many characters."""
        while True:
            grammar, template = self._rng.choice(self._found)
            text = grammar.expand(template)
            if len(text) <= longest:
                return text

    def filled(self, text: str) -> str:
        """The text with every `@ATTACK@` filled."""
        while "@ATTACK@" in text:
            text = text.replace("@ATTACK@", self.attack(160).rstrip(".").replace("@ATTACK@", ""), 1)
        return text


def documents(rng: random.Random, label: int, count: int) -> list[Row]:
    """Mails, pages, code, JSON and the like that carry a message: an injection, or one like any other."""
    data = load(*_SHARED, "en/documents.yaml")
    grammar = Grammar(data["slots"], rng)
    frames = data["frames"]
    quoted = _Quoted(rng)
    innocent = load(*_SHARED, "en/innocent.yaml")
    plain = Grammar(innocent["slots"], rng)
    triggers = innocent["families"]["trigger"]
    rows = []
    for index in range(count):
        if label and rng.random() < 0.75:
            message = grammar.expand("{payload}")
        elif label:
            message = quoted.attack()
        else:
            message = grammar.expand("{note}") if rng.random() < 0.7 else plain.expand(rng.choice(triggers))
        frame = frames[index % len(frames)]
        text = grammar.expand(frame.replace("{MESSAGE}", "\x03")).replace("\x03", message)
        rows.append(Row(text, label, "made:en:document", "en", f"document:{frame}", "document"))
    return rows


def english(rng: random.Random, *, attacks: int, benign: int) -> list[Row]:
    """Rows of English templates; about as many of each family as it has templates."""
    data = load("en.yaml")
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
    """Rows of every other language: `attacks` and `benign` of each that all frames have."""
    shared = load("en.yaml")["slots"]
    first = load("other_languages.yaml")
    rows = []
    for name in ("", *_MORE_LANGUAGES):
        data = load(name) if name else first
        for language, own in data["languages"].items():
            slots = {**shared, **first["languages"][language]}
            for key, value in own.items() if name else ():
                slots[key] = [*slots.get(key, ()), *alternatives(value)]
            grammar = Grammar(slots, rng)
            for label, kind, count in ((1, "attack", attacks), (0, "benign", benign)):
                frames = data["frames"][kind]
                share = len(frames) / len(first["frames"][kind])
                for index in range(round(count * share)):
                    text = _varied(grammar.expand(frames[index % len(frames)]), rng)
                    found = _EMPHASISED.get(name, kind)
                    rows.append(Row(text, label, f"made:{language}", language, kind, found))
    return rows


def _varied(text: str, rng: random.Random) -> str:
    """Differences of writing: first letter, case, marks at the end, a slip of the finger."""
    draw = rng.random()
    if draw < 0.6:
        text = text[:1].upper() + text[1:]
    elif draw < 0.8:
        text = text.lower()
    elif draw < 0.83:
        text = text.upper()
    draw = rng.random()
    if draw < 0.2:
        text = text.rstrip(".!?")
    elif draw < 0.25:
        text = text.rstrip(".") + rng.choice(["!", "!!", "...", " :)", " pls", " thanks", "?"])
    elif draw < 0.28:
        text = text.replace(",", "").replace("'", "")
    return misspelt(text, rng) if rng.random() < 0.08 else text


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
    """Attacks inside harmless documents: e-mails, pages, JSON, code comments, tables.

    `group` names the sources of all their parts, with a plus between them.
    """
    harmless = [row for row in carriers if row.label == 0 and 30 < len(row.text) < 1500]
    rows = []
    for index in range(count):
        attack = rng.choice(attacks)
        around = [rng.choice(harmless) for _ in range(3)]
        text = _CARRIERS[index % len(_CARRIERS)].format(
            before=around[0].text, after=around[1].text, attack=attack.text, subject=around[2].text[:40]
        )
        origin = "+".join(sorted({row.source for row in [attack, *around]}))
        rows.append(Row(text, 1, "made:carried", attack.language, origin))
    return rows


def wrapped_benign(pool: Sequence[Row], rng: random.Random, *, count: int) -> list[Row]:
    """The same documents around harmless sentences, so that a document's form proves nothing."""
    made = carried([row for row in pool if row.label == 0], pool, rng, count=count)
    return [Row(row.text, 0, "made:wrapped", row.language, row.group) for row in made]
