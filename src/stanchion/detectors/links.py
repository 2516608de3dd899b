"""Addresses that carry data out: what a link or an image would tell the host it points to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import msgspec

from stanchion.detectors.token_checks import is_random_token, shannon_bits

_TEMPLATE = re.compile(
    r"\{\{?[^{}]{1,60}\}?\}|\$\{|%7B|<[a-z_ ]{2,30}>|\[(?:data|secret|summary|base64)[^\]]*\]", re.IGNORECASE
)
_CARRIER = re.compile(
    r"(?:^|[&;])(?:data|d|q|payload|content|text|msg|message|body|info|leak|exfil|secret|token|key|c|s|p|prompt|"
    r"history|summary|email|user|cookie)=",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"^(?:utm_\w+|v|ver|version|w|h|width|height|size|format|fm|quality|fit|crop|dpr|auto|lang|hl|page|id|ref|t|"
    r"start|tab|sort|order|limit|offset|ixlib|s|cb|rev)$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]{4,}")
_BIG = 24  # characters of a value that can hold something worth having
_EMAIL = re.compile(r"[\w.+-]{2,}(?:@|%40)[\w-]{2,}\.\w{2,}")


class Verdict(msgspec.Struct, frozen=True):
    """How likely an address carries data out, in [0, 1], and why."""

    score: float
    reason: str


def host_of(url: str) -> str:
    """The host in small letters, without a port; empty when there is none."""
    try:
        return (urlsplit(url if "//" in url else f"//{url}").hostname or "").lower()
    except ValueError:
        return ""


def is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether a host is listed or lies below a listed one."""
    return any(host == entry or host.endswith(f".{entry}") for entry in allowed)


def judge(url: str, *, is_fetched: bool, known_texts: Sequence[str]) -> Verdict:
    """What an address to a foreign host would carry.

    `is_fetched`: shown at once, as images are, so that nobody needs to click. `known_texts` are what the
    model had before it (prompt, documents, question): words of theirs in the address are data going out.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return Verdict(0.6 if is_fetched else 0.4, "an address that cannot be read")
    if _TEMPLATE.search(url):
        return Verdict(0.9 if is_fetched else 0.75, "a placeholder for data in the address")
    values = [*_values(parts.query), parts.fragment]
    segments = [unquote(segment) for segment in parts.path.split("/")]
    labels = (parts.hostname or "").split(".")[:-2]
    carried = [value for value in (*values, *segments, *labels) if value]
    if _repeats(carried, known_texts):
        return Verdict(
            0.97 if is_fetched else 0.85, "words of the conversation or its sources in the address"
        )
    if any(_EMAIL.search(value) for value in values):
        return Verdict(0.85 if is_fetched else 0.6, "a mail address in the address")
    if any(_is_packed(value) for value in (*values, *segments, *labels)):
        return Verdict(0.85 if is_fetched else 0.55, "a long encoded value in the address")
    if any(len(value) >= _BIG and " " in value for value in values) or _CARRIER.search(parts.query):
        return Verdict(0.7 if is_fetched else 0.4, "free text in the address")
    if any(values):
        return Verdict(0.5 if is_fetched else 0.2, "parameters to a host that is not allowed")
    return Verdict(0.2 if is_fetched else 0.05, "a host that is not allowed")


def _values(query: str) -> list[str]:
    found = []
    for pair in re.split(r"[&;]", query):
        name, _, value = pair.partition("=")
        if value and not _HARMLESS.match(name):
            found.append(unquote(value.replace("+", " ")))
        elif not value and len(name) >= 16:
            found.append(unquote(name))
    return found


def _is_packed(value: str) -> bool:
    return (
        len(value) >= _BIG
        and " " not in value
        and (is_random_token(value) or (len(value) >= 60 and shannon_bits(value) >= 3.8))
    )


def _repeats(values: Sequence[str], known_texts: Sequence[str]) -> bool:
    """Whether the values say three or more words in a row that a known text says."""
    if not known_texts:
        return False
    known = [" ".join(word.lower() for word in _WORD.findall(text)) for text in known_texts]
    for value in values:
        words = [word.lower() for word in _WORD.findall(value)]
        for index in range(len(words) - 2):
            piece = " ".join(words[index : index + 3])
            if any(piece in text for text in known):
                return True
    return False
