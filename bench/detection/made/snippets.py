"""Seeded answers with code, dangerous and harmless: pairs of the same task, written for this bench.

Synthetic: the families are ours, so the rates say how well the detector knows what we thought of, under other
names, other wording, other layout; they say little about what we did not think of.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_NAMES = ["data", "name", "value", "item", "user", "target", "payload", "text", "job", "record", "entry"]
_PATHS = ("/srv/www", "reports/2024", "/data/in", "config/app.yaml", "/opt/tool/cache")
_URLS = ("https://example.org", "http://files.example.net", "https://cdn.example.com/pkg")
_TABLES = ["users", "orders", "invoices", "sessions", "products"]
_OPENINGS = (
    "Here is one way to do it:",
    "Sure. You can use this:",
    "Try the following.",
    "",
    "This should work for your case:",
    "Below is the function you asked for. It does not need any extra package.",
)
_COMMENTS = {
    "python": "#",
    "shell": "#",
    "yaml": "#",
    "dockerfile": "#",
    "powershell": "#",
    "sql": "--",
}
_REMARKS = ("never call eval(x) or rm -rf / here", "see the docs", "DROP TABLE x; is not run")
_CLOSINGS = (
    "",
    "Let me know if it works.",
    "Run it and check the output.",
    "Adapt the names to your project.",
)


def snippets(count: int = 840, *, seed: int = 20) -> Iterator[dict[str, Any]]:
    """Rows with `text`, `label` (1 = dangerous), `category` (language and kind); half and half."""
    rng = random.Random(seed)
    families = yaml.safe_load(Path(__file__).with_name("snippets.yaml").read_text(encoding="utf-8"))
    for number in range(count):
        family = families[(number // 2) % len(families)]
        label = number % 2
        language, body = family["language"], family["dangerous" if label else "harmless"].rstrip()
        slots = {
            "v": rng.choice(_NAMES),
            "f": f"{rng.choice(('get', 'make', 'run', 'load'))}_{rng.choice(_NAMES)}",
            "p": rng.choice(_PATHS),
            "u": rng.choice(_URLS),
            "t": rng.choice(_TABLES),
            "b": "cHJpbnQoMSk=",
        }
        code = _decorated(body.format(**slots), language, rng)
        name = rng.choice((language, language, ""))
        fenced = f"```{name}\n{code}\n```"
        text = "\n\n".join(part for part in (rng.choice(_OPENINGS), fenced, rng.choice(_CLOSINGS)) if part)
        yield {
            "id": f"snippet-{number}",
            "text": text,
            "label": label,
            "category": f"{language}.{family['kind']}",
        }


def _decorated(code: str, language: str, rng: random.Random) -> str:
    """Blank lines and comments that name what the code does not do."""
    mark = _COMMENTS.get(language, "//")
    if rng.random() < 0.4 and not code.startswith("<?php"):
        code = f"{mark} {rng.choice(_REMARKS)}\n{code}"
    return code + "\n" * rng.choice((0, 0, 1))
