"""Reads `name = value` in code, configuration or JSON, and says whether the name asks for a secret."""

from __future__ import annotations

import re

import msgspec

from stanchion.detectors.token_checks import is_password_value, is_secret_value, is_userinfo

_PARTS = re.compile(
    r"""(?P<name>[\w.\-\ ]*?)["'`\]]{0,2}[ \t]*(?:[?:|]{0,3}=>?|==|:{1,3}|,)[ \t]*[>|]?
    (?:"(?P<double>[^"\n]*)"|'(?P<single>[^'\n]*)'|`(?P<back>[^`\n]*)`|(?P<bare>[^\s"'`,;]+))""",
    re.VERBOSE,
)
_NAME_BEFORE = re.compile(r"[\w.\-]{0,60}\Z")
_NAME_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PASSWORD_WORDS = _word_set(
    "password passwd pwd pass passphrase passcode passwort contraseña senha wachtwoord pw dbpass"
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
_KEY_DISOWNERS = _word_set(
    "public primary foreign partition sort cache hash row map config i18n translation object composite "
    "unique idempotency routing dictionary index hot lookup registry group bucket shard join natural"
)
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
    if match is None:
        return None
    group = next(g for g in ("double", "single", "back", "bare") if match[g] is not None)
    return Assignment(match["name"], match[group], *match.span(group), group != "bare")


def name_before(text: str, position: int) -> str:
    """The letters of a name that stand directly before `position`, 60 at most."""
    match = _NAME_BEFORE.search(text, max(0, position - 60), position)
    return match.group() if match else ""


def words_of(name: str) -> list[str]:
    """The words of an identifier, small: `dbApiKey_2` gives db, api, key."""
    return [word.casefold() for word in _NAME_WORDS.findall(name) if not word.isdigit()]


def asks_for_password(name: str) -> bool:
    """Whether the name's last word says password (`DB_PASSWORD`, `adminPass`), and not one about it."""
    words = words_of(name)
    return bool(words) and words[-1] in _PASSWORD_WORDS


def asks_for_secret(name: str) -> bool:
    """Whether the name says key, token or secret of a kind that is kept (`api_key`, `clientSecret`)."""
    words = words_of(name)
    if not words or words[-1] in _ABOUT_WORDS:
        return False
    if words[-1] in {"key", "keys"}:
        owner = words[-2] if len(words) > 1 else ""
        return owner not in _KEY_DISOWNERS
    return words[-1] in _SECRET_WORDS or bool(_SECRET_WORDS & set(words[-3:]))


def owns_key(name: str) -> bool:
    """Whether a name that ends in `key` says whose or what for (`api_key`), so that less proof is needed."""
    words = words_of(name)
    return len(words) > 1 and words[-1] in {"key", "keys"} and words[-2] in _KEY_OWNERS


def holds_password(text: str) -> bool:
    """The validator of password assignments: the value is one."""
    found = parse(text)
    if found is None or (found.value.isalpha() and not found.is_quoted):
        return False
    return is_password_value(found.value)


def holds_secret(text: str) -> bool:
    """The validator of secret assignments: the value is one."""
    found = parse(text)
    return found is not None and is_secret_value(found.value)


def holds_userinfo(text: str) -> bool:
    """The validator of a quoted `user:password` after a command's option."""
    quote = text[-1:]
    return quote in {'"', "'"} and is_userinfo(text[:-1].rpartition(quote)[2])
