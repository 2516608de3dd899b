"""Addresses that carry data out: what a link or an image would tell the host it points to."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from stanchion.detectors.token_checks import is_random_token, shannon_bits

_TEMPLATE = re.compile(
    r"\{\{?[^{}]{1,60}\}?\}|\$\{|%7B|<[a-z_ ]{2,30}(?:>|&|\Z)|\[(?:data|secret|summary|base64)[^\]]{0,60}\]",
    re.IGNORECASE,
)
_TAKEN = re.compile(
    r"data|secret|summary|conversation|history|prompt|message|chat|user|email|password|token|content|context",
    re.IGNORECASE,
)
_CARRIER = re.compile(
    r"data|d|payload|content|text|msg|message|body|info|leak|exfil|secret|token|key|c|p|prompt|history|summary|"
    r"email|user|cookie|conversation|chat|q",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"utm_\w+|v|ver|version|w|h|width|height|size|format|fm|quality|fit|crop|dpr|auto|lang|hl|page|id|ref|t|"
    r"start|tab|sort|order|limit|offset|ixlib|s|cb|rev|style|color|label|logo|branch|theme|locale|q|eid|list|index",
    re.IGNORECASE,
)
_SEARCH = re.compile(
    r"(?:^|\.)(?:google|bing|duckduckgo|wikipedia|youtube|startpage|ecosia|qwant)\.|/search\b"
)
_WORD = re.compile(r"[^\W_]{4,}")
_SPACED = re.compile(r"\S\s+\S")
_DIGEST_SIZES = frozenset({32, 40, 56, 64, 96, 128})
_HEX = re.compile(r"[0-9a-fA-F]+")
_BASE32 = re.compile(r"[A-Za-z2-7]+=*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+=*")
_FILE_END = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}\Z")
_SMALL = 16  # characters of an encoded value that can hold something worth having
_BIG = 24  # of a value that was drawn at random
LONGEST = 4096  # characters of an address that are judged
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{2,}(?:@|%40)[\w-]{2,}\.\w{2,}")
_DEPTH = 2  # addresses inside addresses that are followed


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


def judge(url: str, *, is_fetched: bool, known_texts: Sequence[str], depth: int = 0) -> Verdict:
    """What an address to a foreign host would carry; one above `LONGEST` characters is a finding by itself.

    `is_fetched`: shown at once, as images are, so that nobody needs to click. `known_texts` are what the
    model had before it (prompt, documents, question): words of theirs in the address are data going out.
    Text that was encoded (base64, base32, hexadecimal, percent signs) is told from checksums and identifiers
    by decoding it. An address inside an address is judged too: that is how a redirector is used.
    """
    if len(url) > LONGEST:
        begin = judge(url[:LONGEST], is_fetched=is_fetched, known_texts=known_texts, depth=depth)
        too_long = Verdict(0.7 if is_fetched else 0.55, "an address too long to be read")
        return max(begin, too_long, key=lambda verdict: verdict.score)
    try:
        parts = urlsplit(url)
    except ValueError:
        return Verdict(0.6 if is_fetched else 0.4, "an address that cannot be read")
    pairs = list(_pairs(parts.query))
    values = [value for _, value in pairs]
    pieces = [unquote(piece) for piece in (*parts.path.split("/"), *parts.fragment.split("/"))]
    labels = (parts.hostname or "").split(".")[:-2]
    carried = [value for value in (*values, *pieces, *labels) if value]
    if _repeats(carried, known_texts):
        return Verdict(
            0.97 if is_fetched else 0.85, "words of the conversation or its sources in the address"
        )
    found = [
        _template(url, parts, is_fetched),
        _packed([*carried, "".join(values), "".join(labels)], is_fetched),
        _text(parts, values, pieces, is_fetched),
        _parameters(pairs, pieces, is_fetched),
        *_inner(values, is_fetched, known_texts, depth),
    ]
    return max((verdict for verdict in found if verdict is not None), key=lambda verdict: verdict.score)


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    """Names and values of the parameters; a value alone has no name."""
    for pair in re.split(r"[&;]", query):
        name, sign, value = pair.partition("=")
        if value or sign:
            yield name, unquote(value.replace("+", " ")) if value else ""
        elif name:
            yield "", unquote(name)


def _template(url: str, parts: SplitResult, is_fetched: bool) -> Verdict | None:
    """A placeholder that the writer was told to fill; documentation writes them into paths."""
    match = _TEMPLATE.search(url)
    if match is None:
        return None
    takes_data = bool(parts.query or parts.fragment) and bool(_TAKEN.search(parts.query + parts.fragment))
    link = 0.75 if takes_data else 0.3
    return Verdict(0.9 if is_fetched else link, "a placeholder for data in the address")


def _packed(values: Sequence[str], is_fetched: bool) -> Verdict | None:
    if any(_holds_text(part) for value in values for part in value.strip("/").split("/")):
        return Verdict(0.92 if is_fetched else 0.75, "encoded text in the address")
    return None


def _holds_text(value: str) -> bool:
    """Whether a value decodes to text: at least eleven printable characters, most of them letters."""
    value = _FILE_END.sub("", value)
    if len(value) < _SMALL:
        return False
    return any(_is_text(raw) for raw in _decodings(value))


def _decodings(value: str) -> Iterator[bytes]:
    if _HEX.fullmatch(value):
        yield bytes.fromhex(value[: len(value) // 2 * 2])
    if _BASE32.fullmatch(value) and (value.islower() or value.isupper()):
        core = value.rstrip("=").upper()
        for end in range(len(core), max(len(core) - 3, 0), -1):
            try:
                yield base64.b32decode(core[:end] + "=" * (-end % 8))
            except binascii.Error:
                continue
            break
    if _BASE64.fullmatch(value):
        core = value.rstrip("=").replace("-", "+").replace("_", "/")
        for start in range(4):  # a value may be the second half of another
            piece = core[start : start + (len(core) - start) // 4 * 4]
            yield base64.b64decode(piece) if piece else b""


def _is_text(raw: bytes) -> bool:
    if len(raw) < 11:
        return False
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    letters = sum(character.isalpha() or character == " " for character in text)
    return text.replace("\n", " ").isprintable() and letters >= 0.6 * len(text)


def _text(
    parts: SplitResult, values: Sequence[str], pieces: Sequence[str], is_fetched: bool
) -> Verdict | None:
    """Plain words: a sentence in a parameter, a longer one in the path; a search says little."""
    if any(_EMAIL.search(value) for value in values):
        return Verdict(0.85 if is_fetched else 0.6, "a mail address in the address")
    said = max((len(value.split()) for value in values if _SPACED.search(value)), default=0)
    written = max((len(piece.split()) for piece in pieces if _SPACED.search(piece)), default=0)
    if said < 3 and written < 4 and not (written == 3 and any(map(_names_number, pieces))):
        return None
    is_search = not is_fetched and said < 8 and bool(_SEARCH.search(f"{parts.hostname}{parts.path}"))
    if is_search:
        return Verdict(0.3, "words of a search")
    return Verdict(0.85 if is_fetched else 0.6, "free text in the address")


def _names_number(text: str) -> bool:
    """Whether words hold a number or a key, as `account number 4711` does."""
    return any(len(word) >= 4 and any(c.isdigit() for c in word) for word in text.split())


def _parameters(pairs: Sequence[tuple[str, str]], pieces: Sequence[str], is_fetched: bool) -> Verdict:
    """What is left: identifiers and settings. Checksums in a path are how files are named."""
    told = [
        (name, value)
        for name, value in pairs
        if not _HARMLESS.fullmatch(name) or len(value) >= _BIG or (name == "q" and is_fetched)
    ]
    if any(_CARRIER.fullmatch(name) and len(value) >= 4 for name, value in told):
        return Verdict(0.7 if is_fetched else 0.4, "a parameter named after data")
    if any(_is_drawn(value) for _, value in told):
        return Verdict(0.6 if is_fetched else 0.35, "a long identifier in a parameter")
    if any(_is_drawn(piece) for piece in pieces):
        return Verdict(0.4 if is_fetched else 0.2, "a long identifier in the path")
    if told:
        return Verdict(0.45 if is_fetched else 0.2, "parameters to a host that is not allowed")
    return Verdict(0.2 if is_fetched else 0.05, "a host that is not allowed")


def _is_drawn(value: str) -> bool:
    value = _FILE_END.sub("", value)
    if len(value) < _BIG or " " in value or (len(value) in _DIGEST_SIZES and _HEX.fullmatch(value)):
        return False
    return is_random_token(value) or (len(value) >= 60 and shannon_bits(value) >= 3.8)


def _inner(
    values: Sequence[str], is_fetched: bool, known_texts: Sequence[str], depth: int
) -> Iterator[Verdict]:
    """What the addresses inside an address carry: a redirector passes them on."""
    if depth >= _DEPTH:
        return
    for value in values:
        if re.match(r"(?:https?:)?//", value):
            verdict = judge(value, is_fetched=is_fetched, known_texts=known_texts, depth=depth + 1)
            yield msgspec.structs.replace(verdict, reason=f"an address inside: {verdict.reason}")


def _repeats(values: Sequence[str], known_texts: Sequence[str]) -> bool:
    """Whether the values say three or more words in a row that a known text says."""
    said = {
        triple for value in values for triple in _triples([word.lower() for word in _WORD.findall(value)])
    }
    return bool(said) and any(not said.isdisjoint(_known_triples(text)) for text in known_texts)


def _triples(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(words, words[1:], words[2:], strict=False)


@lru_cache(maxsize=32)
def _known_triples(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_triples([word.lower() for word in _WORD.findall(text)]))
