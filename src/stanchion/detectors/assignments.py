"""Reads `name = value` in code, configuration, JSON or XML, and says whether the name asks for a secret."""

from __future__ import annotations

import re

import msgspec

from stanchion.detectors.token_checks import (
    is_drawn,
    is_password_value,
    is_prose,
    is_secret_value,
    is_userinfo,
)

_PARTS = re.compile(
    r"""(?P<name>[\w.\-\ ]*?)["'`\]]{0,2}[ \t]*(?:[?:|]{0,3}=>?|==|:{1,3}|,)[ \t]*[>|]?
    (?:"(?P<double>[^"\n]*)"|'(?P<single>[^'\n]*)'|`(?P<back>[^`\n]*)`|(?P<bare>[^\s"'`,;]+))""",
    re.VERBOSE,
)
# How a name and its value stand together when there is no plain sign between them.
_JOINED = re.compile(
    r"""(?P<name>[\w.\-\ ]*?)(?:
    # "name": "X", "value": "..."
    \\?["'`]?\s{0,3},?\s{0,40}(?:-\s)?\\?["']?\b(?:value|default|defaultvalue)\\?["']?\s{0,3}[:=]\s{0,3}
    # a variable of HCL
    |["']\s{0,4}\{[^{}]{0,160}?\bdefault\s{0,8}=\s{0,4}
    # XML, property lists
    |["']?(?:\s[^<>=\n]{0,40})?>\s{0,20}(?:</key>\s{0,20}<string>)?|</key>\s{0,20}<string>
    # a type between
    |:[ ]{0,2}(?:private\s|static\s)?&?(?:'static\ )?[A-Za-z][\w.<>\[\]|?]{0,24}[ ]?=[ ]?
    # a default behind
    |[ ]{0,3}=[ ]{0,3}[^\s=;,"']{3,60}[ ]{0,3}(?:\|\||\?\?|\?:|\bor\b)[ ]{0,3}
    |[ ]{0,3}[=:][ ]{0,3}["']?\$\{[\w.]{2,60}:-?|:[-=?]
    # Markdown
    |\*{0,2}:?\*{2}:?[ ]{0,3}|[ ]{0,3}\|[ ]{0,3}
    # a call, #define
    |["'\])]{0,2}[ ]?(?:,[ ]{0,10}|\([ ]?|[ \t]{1,8})
    )(?:
    \\?"(?P<double>[^"\n\\]*)\\?"|'(?P<single>[^'\n]*)'|`(?P<back>[^`\n]*)`|(?P<bare>[^\s"'`,;<>}]+)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_IDENTIFIER = re.compile(r"_*[A-Za-z]+(?:_+[A-Za-z]+)*_*(?:\[.*)?\Z")
_NAMELIKE = re.compile(r"[A-Za-z]+(?:[-_. ][A-Za-z]+)*")
_NEXT_PARAMETER = re.compile(r"&\w+=")
_NAME_BEFORE = re.compile(r"[\w.\-]{0,60}\Z")
NAME_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PASSWORD_WORDS = _word_set(
    "password passwd pwd pass passphrase passcode passwort contraseña senha wachtwoord pw psk"
)
_PASSWORD_ENDS = ("password", "passwd", "passphrase", "passcode", "passwort", "pwd")
_PASS_WORDS = _word_set(
    "dbpass mypass userpass rootpass adminpass sqlpass mysqlpass sshpass ftppass mailpass smtppass"
)
_STAGES = _word_set(
    "prod production dev development staging stage test live db admin root user master old new"
)
_SECRET_WORDS = _word_set(
    "secret secrets token tokens credential credentials apikey apitoken authtoken accesstoken secretkey "
    "accesskey authkey cred creds auth authorization salt bearer"
)
_KEY_OWNERS = _word_set(
    "api access secret private encryption encrypt decryption signing sign master service account auth "
    "license licence app application client consumer shared storage deploy deployment admin server "
    "session hmac jwt rest web write read ingest integration subscription user bot webhook aes des "
    "cipher crypto vault root host production prod staging live stripe aws gcp azure github openai "
    "anthropic"
)
_TOKEN_DISOWNERS = _word_set(
    "public publishable "
    "csrf xsrf csrfmiddleware authenticity antiforgery forgery verification page pagination continuation "
    "next previous sync cursor idempotency request client resume start end cancellation cancel lock fencing "
    "upload delta special pad eos bos unk sep cls mask stop"
)
_KEY_DISOWNERS = _word_set(
    "public primary foreign partition sort cache hash row map config i18n translation object composite "
    "unique idempotency routing dictionary index hot lookup registry group bucket shard join natural"
)
_PLURALS = _word_set("secrets tokens credentials creds keys")
_RELATING_WORDS = _word_set("to for of from with without in per")
# A name that ends so speaks of a secret without holding it.
_ABOUT_WORDS = _word_set(
    "id ids name names type types url uri endpoint host path file filename dir directory length len "
    "size count limit expiry expires expiration expired ttl time timestamp at date hash algorithm alg "
    "format field label header prefix suffix version policy rotation manager provider store service "
    "class param params regex pattern placeholder hint reset required enabled disabled validator ref "
    "reference arn index issuer scope scopes set map kind status page message error errors bytes usage "
    "budget max min text input element column env var variable fingerprint thumbprint digest checksum "
    "source resolver generator factory handler fn func callback list title description template "
    "strength rules confirmation confirm"
)


class Assignment(msgspec.Struct, frozen=True):
    """What stands left and right of the sign; `start` and `end` are the value's place in the text read."""

    name: str
    value: str
    start: int
    end: int
    is_quoted: bool


def parse(text: str) -> Assignment | None:
    """The assignment at the start of a text, quotes taken off the value; None where there is none."""
    match = _PARTS.match(text)
    if match is None or (
        match["bare"] and match.string[match.end("name") : match.start("bare")].strip() == ","
    ):
        return None
    return _assignment(match)


def parse_joined(text: str) -> Assignment | None:
    """A name and a value that stand together without a plain sign: in XML, pairs, calls, declarations."""
    match = _JOINED.match(text)
    return None if match is None else _assignment(match)


def _assignment(match: re.Match[str]) -> Assignment:
    group = next(g for g in ("double", "single", "back", "bare") if match[g] is not None)
    start, end = match.span(group)
    if group == "bare":
        parameter = _NEXT_PARAMETER.search(match.string, start, end)
        end = parameter.start() if parameter else end
        if match.string[start] in "-=?" and match.string[start - 1] == ":":
            start += 1  # ${NAME:-value}
        end = start + _without_closers(match.string[start:end])
    return Assignment(match["name"], match.string[start:end], start, end, group != "bare")


def _without_closers(value: str) -> int:
    """How many characters remain without closing brackets that nothing in the value opened (`None):`)."""
    kept = value.rstrip(":.")
    while kept and kept[-1] in _CLOSERS and kept.count(kept[-1]) > kept.count(_CLOSERS[kept[-1]]):
        kept = kept[:-1].rstrip(":.")
    return len(kept) if len(kept) < len(value.rstrip(":.")) else len(value)


def name_before(text: str, position: int) -> str:
    """The letters of a name that stand directly before `position`, 60 at most."""
    match = _NAME_BEFORE.search(text, max(0, position - 60), position)
    return match.group() if match else ""


def words_of(name: str) -> list[str]:
    """The words of an identifier, small: `dbApiKey_2` gives db, api, key."""
    return [word.casefold() for word in NAME_WORDS.findall(name) if not word.isdigit()]


def asks_for_password(name: str) -> bool:
    """Whether the name's last word says password (`DB_PASSWORD`, `adminPass`), and not one about it."""
    words = words_of(name)
    while len(words) > 1 and words[-1] in _STAGES:
        words.pop()
    if not words:
        return False
    last = words[-1]
    return last in _PASSWORD_WORDS or last in _PASS_WORDS or last.endswith(_PASSWORD_ENDS)


def asks_for_secret(name: str) -> bool:
    """Whether the name says key, token or secret of a kind that is kept (`api_key`, `clientSecret`)."""
    words = words_of(name)
    if not words or words[-1] in _ABOUT_WORDS:
        return False
    if words[-1] in _PLURALS and _RELATING_WORDS & set(words[:-1]):
        return False  # `vaultToStoreSecrets` names a vault
    if words[-1] in {"key", "keys"}:
        owner = words[-2] if len(words) > 1 else ""
        return owner not in _KEY_DISOWNERS
    if words[-1] in {"token", "tokens"} and len(words) > 1 and words[-2] in _TOKEN_DISOWNERS:
        return False
    if words[-1] == "csrfmiddlewaretoken" or "csrf" in words or "xsrf" in words:
        return False
    return words[-1] in _SECRET_WORDS or bool(_SECRET_WORDS & set(words[-3:]))


def owns_key(name: str) -> bool:
    """Whether a name that ends in `key` says whose or what for (`api_key`), so that less proof is needed."""
    words = words_of(name)
    return len(words) > 1 and words[-1] in {"key", "keys"} and words[-2] in _KEY_OWNERS


def holds_password(text: str) -> bool:
    """The validator of password assignments: the value is one."""
    return _is_password(parse(text))


def _is_password(found: Assignment | None) -> bool:
    if found is None or is_prose(found.value):
        return False
    if not found.is_quoted and (_IDENTIFIER.match(found.value) or set(found.value) & set("()[{")):
        return is_drawn(found.value)
    return is_password_value(found.value)


def holds_joined_value(text: str) -> bool:
    """The validator of joined values: the name asks for a credential (as far as it is seen) and gets one."""
    found = parse_joined(text)
    if found is None or _is_listed(text, found):
        return False
    return _is_password(found) if asks_for_password(found.name) else is_secret_value(found.value)


def holds_secret(text: str) -> bool:
    """The validator of secret assignments: the value is one."""
    found = parse(text)
    return found is not None and is_secret_value(found.value)


def _is_listed(text: str, found: Assignment) -> bool:
    """Whether a name and a word only stand in a row (`"passwd", "gid"`; `pass "x"` in a sentence)."""
    sign = text[len(found.name) : found.start].strip("\"'` ")
    if sign not in {"", ","}:
        return False
    return (found.name in {"pass", "Pass"} and not sign) or _NAMELIKE.fullmatch(found.value) is not None


def holds_userinfo(text: str) -> bool:
    """The validator of a quoted `user:password` after a command's option."""
    quote = text[-1:]
    return quote in {'"', "'"} and is_userinfo(text[:-1].rpartition(quote)[2])
