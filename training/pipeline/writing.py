"""Long writing: pieces of the running Python's library, made prose of many kinds, and attacks put into both.

A long text has many windows, and the worst of them is what a detector sees, so long harmless texts teach what
many short ones do not.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path

from pipeline.grammar import Grammar, load
from pipeline.rows import Row

SHORTEST, LONGEST = 300, 8000  # characters of a piece
AROUND = 600
_PACKAGES = (
    "asyncio", "collections", "concurrent/futures", "ctypes", "curses", "dbm", "distutils", "email",
    "encodings", "ensurepip", "html", "http", "idlelib", "importlib", "json", "lib2to3", "logging",
    "multiprocessing", "pydoc_data", "re", "sqlite3", "tkinter", "tomllib", "unittest", "urllib",
    "venv", "wsgiref", "xml/dom", "xml/sax", "xmlrpc",
)  # fmt: skip


def python_texts(rng: random.Random, *, count: int) -> list[Row]:
    """Pieces of the running Python's manual pages, documentation strings and source code, `count` in all.

    Sizes are drawn evenly on a logarithmic scale.
    """
    from pydoc_data.topics import topics

    sources = _sources()
    pools = (
        ("made:pydoc", [topics[name] for name in sorted(topics)]),
        ("made:docstrings", [text for text in map(_documentation, sources) if len(text) > SHORTEST]),
        ("made:code", sources),
    )
    rows = []
    for index in range(count):
        source, texts = pools[index % len(pools)]
        size = int(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
        text = rng.choice(texts)
        start = rng.randint(0, max(len(text) - size, 0))
        rows.append(Row(text[start : start + size], 0, source, "en", kind="library"))
    return rows


def _sources() -> list[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(library.glob("*.py"))
    for package in _PACKAGES:
        files += sorted((library / package).glob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return [text for text in texts if len(text) > 2 * SHORTEST]


def _documentation(source: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except SyntaxError:
            return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    return "\n\n".join(text for text in found if text)


def prose(rng: random.Random, *, sentences: int, documents: int) -> list[Row]:
    """Harmless sentences of many kinds of writing, alone, and documents of 6 to 50 of them."""
    data = load("en/prose.yaml")
    grammar = Grammar(data["slots"], rng)
    kinds = data["families"]
    names = sorted(kinds)

    def sentence(kind: str) -> str:
        text = grammar.expand(rng.choice(kinds[kind]))
        return text[:1].upper() + text[1:]

    rows = []
    for index in range(sentences):
        kind = names[index % len(names)]
        text = " ".join(sentence(kind) for _ in range(rng.choice([1, 1, 1, 2, 3])))
        text = text.lower() if rng.random() < 0.15 else text
        rows.append(Row(text, 0, f"made:prose:{kind}", "en", f"prose:{kind}", kind))
    for index in range(documents):
        kind = names[index % len(names)]
        other = rng.choice(names)
        parts = [sentence(kind if rng.random() < 0.75 else other) for _ in range(rng.randint(6, 50))]
        joint = rng.choice([" ", "\n", "\n\n", "\n- ", "\n   "])
        text = joint.join(parts) if rng.random() < 0.6 else _paragraphs(parts, rng)
        rows.append(Row(text[:LONGEST], 0, f"made:prose:{kind}", "en", f"prose:{kind}", kind))
    return rows


def _paragraphs(parts: Sequence[str], rng: random.Random) -> str:
    text = ""
    for number, part in enumerate(parts):
        text += part
        text += f"\n\n{number}. " if rng.random() < 0.1 else rng.choice(["\n\n", " ", " ", " "])
    return text.strip()


def embedded(attacks: Sequence[Row], writing: Sequence[Row], rng: random.Random, *, count: int) -> list[Row]:
    """Attacks put between two lines of long writing, `AROUND` characters of it on both sides.

    `group` names the sources of both. The writing is cut so that the window of the attack is among those
    that are learnt from.
    """
    pool = [row for row in writing if len(row.text) > 2 * SHORTEST]
    short = [row for row in attacks if len(row.text) <= 800]
    rows = []
    for _ in range(count):
        attack, around = rng.choice(short), rng.choice(pool)
        place = around.text.find("\n", rng.randrange(len(around.text)))
        place = len(around.text) if place < 0 else place
        joint = rng.choice(["\n", "\n\n", "\n# ", "\n> ", "\n- "])
        before, after = around.text[max(place - AROUND, 0) : place], around.text[place : place + AROUND]
        text = f"{before}{joint}{attack.text}\n{after}"
        group = "+".join(sorted({attack.source, around.source}))
        rows.append(Row(text, 1, "made:embedded", attack.language, group))
    return rows
