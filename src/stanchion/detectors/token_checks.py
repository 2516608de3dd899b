"""Tells credentials from look-alikes: structure, checksums, randomness, placeholders.

Thresholds were chosen on made-up training rows and on vendors' documented shapes, not on the reporting rows.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import re
import zlib
from collections import Counter

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_REFERENCE = re.compile(
    r"""\A(?:ENC\[|!(?:Ref|Sub|GetAtt|ImportValue|Join|vault|reference|secret)\b|file:|(?:vault|op|ref\+\w+|ssm
    |secretsmanager|keyvault|keyring|akv|gcpsm|awssm|doppler|env|arn|projects)[:/]|@Microsoft\.KeyVault)|\$\{|\$\(|\{\{|\}\}|<[^<>]{1,60}>|%[A-Z_]{2,40}%|\#\{|\A\$[A-Za-z_]|\A@?\{[\w.\s-]*\}\Z|\A\[[^\]]{1,60}\]\Z
    |\A(?:process\.env|os\.environ|os\.getenv|getenv|env|ENV|System\.getenv|secrets|vars?|local|data|module
    |config|settings|params|self|this|ctx|args|options|request|props)[.\[(]|\Aarn:aws|\A/[\w./-]+\Z|\A\.{1,2}/""",
    re.VERBOSE,
)
_FILLER_WORD = re.compile(
    r"""example|sample|dummy|placeholder|change_?-?me|your[_-]|your_?(?:key|token|api)|[_-]here\b|replace|redacted
    |fixme|insert[_-]|secret_?key_?here|my_?-?(?:secret|password|token|api|key)|foobar|not_?-?real|\bfake|\bmock
    |lorem|\btodo\b|xxxx|\*{3,}|\.{3,}|_{6,}|-{6,}|x{6}|test_?(?:key|token|secret|password)""",
    re.VERBOSE | re.IGNORECASE,
)
# One group again and again (`1234-1234-1234`): nobody draws that.
_SAME_GROUPS = re.compile(r"(?<![A-Za-z0-9])([0-9]{3,12})(?:[-_. ]\1){2}(?![A-Za-z0-9])")
_SEQUENCE = re.compile(
    r"0{8}|abcdef(?:gh|0123|g)|0?123456789|987654321|qwerty|(?:deadbeef){2}|a{8}|(.)\1{6}", re.IGNORECASE
)


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILLER_VALUES = _word_set(
    "null none nil undefined true false yes no on off empty string integer secret password passwd token "
    "passphrase credential credentials required optional default unknown invalid missing expired "
    "encrypted hidden masked removed admin root guest user username postgres mysql localhost enabled "
    "disabled test demo"
)
_WORD = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}")
# The commonest pairs of letters in English words; of drawn letters about a quarter are among them.
_COMMON_PAIRS = _word_set(
    "th he in er an re nd on en at ou ed ha to or it is hi es ng ti nt al ar st as te le se ve me de co "
    "ro ea io ne li ra ce ri ic om ll el la ta di si ma so fo us ur et na no ec be ge il ag ac ot ch em "
    "ol ai ad un id po pe ss ow tr ee am wi wh sh ho op rs ke bl ct ab ie oo pa mo do ca im pl su sp mi "
    "vi ul up lo bo ba ef av ev ig ir iv gi da tu fe fi fr gr cr br cl ck ex ap ut cu ld lt ly nc ns ey "
    "ty ay os pr rd ru rt rm rn rk ry sc ser sw ts tt ua ue ui um va wa we wo ye yo za fu go gu gh hu "
    "ib ja jo ki ko ku lu mb mp mu nf nk nu ob od of og ok ov oc oi"
)
_DIGIT = re.compile(r"\d")
_SYMBOL = re.compile(r"[^A-Za-z0-9\s]")
_CALL_OR_NAME = re.compile(
    r"\A[\w.]+\(.*\)?\Z|\A[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\Z|\A\w+(?:\.\w+)*\[.*\]\Z|\A\w+(?:\s?\|\s?\w+)+\Z"
)
_NUMBERED = re.compile(r"\A[a-z]+\.[a-z]+[0-9]{2,}\Z")  # word.word1234: nobody names an attribute so
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]+\Z")
_PROSE_END = re.compile(r"[.?!:\u2026]\Z")
_PROSE_WORD = re.compile(
    r"(?:^|\s)(?:the|an?|your|my|is|are|must|for|please|enter|forgot(?:ten)?|invalid|incorrect|wrong|to|at|and|or"
    r"|not|no|of|in|with|be|reset|change|new|old|current|confirm|de|la|le|el|der|die|das|ihr|votre|su|tu)(?:\s|\Z)",
    re.IGNORECASE,
)
_CODE = re.compile(r"[(){};]|=>|->|::|\w\.\w+\(|\w\[[\w:.\-]*\]")
_ALGORITHM = re.compile(
    r"(?:hmac|cram|scram|digest|rsa|dsa|ecdsa|eddsa|aes|sha|md|hs|rs|es|ps|pbkdf|chacha|bcrypt|argon|ed)"
    r"[-_/.a-z]{0,12}[-_/]?[0-9]{1,4}(?:[-_/][a-z0-9]{1,8}){0,3}\Z",
    re.IGNORECASE,
)
_NOT_SEED_WORDS = _word_set("the and for that which with this not are from was has have will when")


def shannon_bits(text: str) -> float:
    """Shannon entropy of the characters, in bits a character; 0 for an empty text."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values()) if size else 0.0


def is_filler(value: str) -> bool:
    """A value that says it stands for a credential: a reference, a filler word, a piece repeated."""
    text = value.strip().strip("\"'`")
    if not text or _ALGORITHM.match(text) or text.casefold() in _FILLER_VALUES or _REFERENCE.search(text):
        return True
    return bool(_FILLER_WORD.search(text) or _SAME_GROUPS.search(text)) or _is_repetitive(text)


def is_placeholder(value: str) -> bool:
    """Filler, or mostly a row of neighbours (`0123456789`): no credential unless a shape vouches for it."""
    return is_filler(value) or bool(_SEQUENCE.search(value)) or _neighbours(value) > 0.6


def _neighbours(text: str) -> float:
    """Share of the steps between letters, in either case, and digits that go up or down by one."""
    body = re.sub(r"[^A-Za-z0-9]", "", text).casefold()
    steps = [abs(ord(b) - ord(a)) for a, b in itertools.pairwise(body)]
    return steps.count(1) / len(steps) if steps else 0.0


def _is_repetitive(text: str) -> bool:
    body = re.sub(r"[^A-Za-z0-9]", "", text)
    if len(body) < 4:
        return len(set(text)) < 3
    return len(set(body.casefold())) <= max(2, min(5, len(body) // 8)) or _neighbours(text) > 0.85


def wordiness(value: str) -> float:
    """Share of the characters that stand in letter runs made of common pairs, in [0, 1]."""
    total = len(value)
    if not total:
        return 0.0
    worded = 0
    for match in _WORD.finditer(value):
        word = match.group().casefold()
        common = sum(word[i : i + 2] in _COMMON_PAIRS for i in range(len(word) - 1))
        if len(word) >= 4 and common >= 0.7 * (len(word) - 1):
            worded += len(word)
    return worded / total


def is_random_token(value: str) -> bool:
    """A value of 16 or more characters that was drawn at random, in hexadecimal or a larger alphabet."""
    if len(value) < 16 or is_placeholder(value):
        return False
    bits = shannon_bits(value)
    if _HEX.match(value):
        return bits >= 2.9 and not value.isdigit()
    if _UUID.match(value):
        return bits >= 2.9
    return bits >= 3.3 and bool(_DIGIT.search(value)) and wordiness(value) < 0.5


def is_secret_value(value: str) -> bool:
    """What stands in a credential's place and is one: 8 characters or more, mixed, no code, no filler."""
    if not 8 <= len(value) <= 512 or is_placeholder(value):
        return False
    if _CODE.search(value):
        return 40 <= len(value) <= 128 and shannon_bits(value) >= 4.8 and wordiness(value) < 0.15
    if _HEX.match(value) or _UUID.match(value):
        return len(value) >= 16 and is_random_token(value)
    if not _DIGIT.search(value):
        return len(value) >= 24 and shannon_bits(value) >= 4.2 and wordiness(value) < 0.35
    return shannon_bits(value) >= min(3.2, 0.8 * math.log2(len(value))) and wordiness(value) < 0.6


def is_password_value(value: str) -> bool:
    """What stands after `password =` and is one: 6 characters or more, no filler, no code, no plain word."""
    if not 6 <= len(value) <= 256 or is_placeholder(value) or value.isspace():
        return False
    if _CALL_OR_NAME.search(value) and not _NUMBERED.search(value):
        return False
    if _CONSTANT.match(value) and not is_drawn(value):
        return False
    return bool(_DIGIT.search(value) or _SYMBOL.search(value)) or len(set(value)) >= 8


def is_command_password(value: str) -> bool:
    """A password after a short option (`-p ...`): letters with digits, no port, path or plain word."""
    return is_password_value(value) and is_spoken_password(value) and not re.match(r"[\d.]+:\d+|[./~]", value)


def is_drawn(value: str) -> bool:
    """Letters (and digits) in no order of words or names: both cases mixed, or digits among capitals."""
    if len(value) < 8 or wordiness(value) >= 0.4 or is_placeholder(value) or "_" in value:
        return False
    has_digit = bool(_DIGIT.search(value))
    changes = sum(a.isupper() != b.isupper() for a, b in itertools.pairwise(value))
    return shannon_bits(value) >= 2.5 and (has_digit or changes >= 3)


def is_prose(value: str) -> bool:
    """Words of a language with spaces between: a label, a message, a hint; no passphrase of drawn words."""
    if re.fullmatch(r"[^\W\d_]+\s?[:?!\u2026]\s?", value):
        return True
    if not re.search(r"\S\s+\S", value) or wordiness(value) < 0.3:
        return False
    if _CODE.search(value):
        return True
    return bool(_PROSE_END.search(value) or _PROSE_WORD.search(value)) or len(value.split()) < 4


def is_spoken_password(value: str) -> bool:
    """A password in running prose ('the password is ...'): letters with digits, or symbols inside."""
    if not is_password_value(value) or (value.endswith((".", ",")) and value[:-1].isalpha()):
        return False
    if re.match(r"_*[A-Za-z]+(?:['_.-]+[A-Za-z]+)*[.,;:!?)]*\Z|[(\[{]", value):
        return False
    has_letter, has_digit = any(c.isalpha() for c in value), bool(_DIGIT.search(value))
    return (has_letter and has_digit) or (bool(_SYMBOL.search(value)) and (has_letter or has_digit))


def is_filled(value: str) -> bool:
    """Not filler: the gate of every token that is known by its prefix."""
    return not is_filler(value)


def is_shaped(value: str) -> bool:
    """Not filler and not of few characters: for values of a vendor's exact shape after its name."""
    return not is_filler(value) and shannon_bits(value) >= 2.7 and wordiness(value) < 0.6


def is_filled_and_mixed(value: str) -> bool:
    """Not filler and of some randomness: for prefixes that also occur in ordinary names."""
    return not is_filler(value) and shannon_bits(value) >= 3.0 and wordiness(value) < 0.6


def has_github_checksum(token: str) -> bool:
    """The last six characters are the base62 CRC-32 of what stands between prefix and them.

    Source: GitHub engineering blog, "Behind GitHub's new authentication token formats" (2021).
    """
    body = token.rpartition("_")[2]
    if len(body) < 12:
        return False
    return _base62(zlib.crc32(body[:-6].encode("ascii", "replace"))).rjust(6, "0") == body[-6:]


def _base62(value: int) -> str:
    digits = ""
    while value:
        value, rest = divmod(value, 62)
        digits = _BASE62[rest] + digits
    return digits or "0"


def _json_segment(segment: str) -> object:
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        return json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        return None


def is_jwt(token: str) -> bool:
    """A JSON web token (RFC 7519): the first part decodes to a JSON object that names an algorithm.

    An unsigned token (`"alg": "none"`) counts: it can still be accepted somewhere. So does one that was
    mistyped after `{"alg":`.
    """
    segment = token.partition(".")[0]
    header = _json_segment(segment)
    if header is None:
        return segment.startswith(("eyJhbGciOi", "eyJ0eXAiOiJKV1Qi"))
    return isinstance(header, dict) and isinstance(header.get("alg"), str)


def is_jwt_in_base64(text: str) -> bool:
    """A JSON web token that was base64-encoded once more, as some secret stores do."""
    try:
        inner = base64.b64decode(text[: len(text) // 4 * 4], validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return False
    return inner.startswith("ey") and is_jwt(inner)


def is_basic_auth(value: str) -> bool:
    """What follows `Authorization: Basic`: base64 of `user:password`, the password no placeholder."""
    try:
        pair = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return False
    user, separator, password = pair.partition(":")
    return (
        bool(separator)
        and bool(user or password)
        and pair.isprintable()
        and not is_placeholder(password or user)
    )


def is_userinfo(value: str) -> bool:
    """`user:password` of an address or of `curl -u`, where the password is no placeholder."""
    user, separator, password = value.partition(":")
    password = password.strip("\"'{}")
    if not separator or len(password) < 3 or is_placeholder(password):
        return False
    return not _REFERENCE.search(user) and password.casefold() not in {"pass", "pwd", "pw"}


def is_azure_storage_key(value: str) -> bool:
    """64 bytes in base64, as the account keys of Azure Storage are."""
    try:
        return len(base64.b64decode(value, validate=True)) == 64 and not is_placeholder(value)
    except (binascii.Error, ValueError):
        return False


def is_private_key_block(block: str) -> bool:
    """A PEM private key with a body: at least 64 base64 characters that are not one letter repeated."""
    body = re.sub(r"-----[^-]*-----|\\[nr]|[A-Za-z-]+: [^\n\\]*|\s|[\"'+,]", "", block)
    return len(body) >= 32 and len(set(body)) >= 10


_SUFFIX_START = re.compile(r"[-_./~:|]|%7C")


def _suffix(token: str) -> str:
    """The longest run between separators: the part of a token that was drawn at random."""
    return max(_SUFFIX_START.split(token), key=len, default="")


def is_mixed_suffix(token: str) -> bool:
    """The token's longest run is neither filler nor words, digits or not."""
    suffix = _suffix(token)
    return not is_filler(token) and shannon_bits(suffix) >= 2.2 and wordiness(suffix) < 0.6


def is_random_suffix(token: str) -> bool:
    """The token's longest run holds letters and digits and looks drawn at random."""
    suffix = _suffix(token)
    return (
        not is_placeholder(token)
        and bool(_DIGIT.search(suffix))
        and any(c.isalpha() for c in suffix)
        and shannon_bits(suffix) >= 3.0
        and wordiness(suffix) < 0.5
    )


def is_header_value(value: str) -> bool:
    """What a request header carries as its credential: no filler, no word, no reference; digits or length."""
    if is_placeholder(value) or (len(value) < 24 and re.fullmatch(r"[A-Za-z]+(?:[-_.][A-Za-z]+)*", value)):
        return False
    return shannon_bits(value) >= 2.5 and wordiness(value) < 0.6


def is_seed_phrase(text: str) -> bool:
    """12, 15, 18, 21 or 24 words or more, none of which only joins others (BIP 39 lists no such words)."""
    words = re.findall(r"[a-z]+", text.casefold())
    return len(words) >= 12 and not _NOT_SEED_WORDS & set(words) and len(set(words)) >= 9


def is_connection_string(url: str) -> bool:
    """An address `scheme://user:password@host` whose password is no placeholder."""
    userinfo = url.partition("://")[2].rpartition("@")[0]
    user, separator, password = userinfo.partition(":")
    if not separator or not password or is_placeholder(password) or _REFERENCE.search(user):
        return False
    return password.casefold() not in {"pass", "pwd", "pw", "x", "xxx"} and (user, password) != (
        "scott",
        "tiger",
    )
