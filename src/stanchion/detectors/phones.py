"""Telephone numbers: a candidate's form, its words, and what the numbering plans say (`phonenumberslite`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_INTERNATIONAL = re.compile(r"(?:\+|00(?!0)|001[ .\-]|011[ .\-])")
_NORTH_AMERICAN = re.compile(r"(?:1[ .\-]?)?(?:\(\d{3}\) ?|\d{3}[.\- ])\d{3}[.\- ]\d{4}")
_AREA_IN_BRACKETS = re.compile(r"\(0?\d{1,5}\)[ \-]?\d{2,5}(?:[ \-]\d{2,5}){0,3}")
_TRUNK_GROUPS = re.compile(r"0\d{1,5}(?:[ \-.]\d{2,9}){1,4}|0\d{1,5}/\d{4,9}|0\d(?:/\d\d){4}")
_GROUPS = re.compile(r"\d{2,5}(?:[ \-.]\d{2,7}){1,4}|\(\d{1,5}\)[ \-]?\d{2,5}(?:[ \-.]\d{2,5})*")
_EXTENSION = re.compile(r"[ ]?(?:x|ext\.?|extension)[ ]?\d{1,6}\Z", re.IGNORECASE)
_DATE = re.compile(
    r"(?:19|20)\d\d[.\-/ ][01]?\d[.\-/ ][0-3]?\d\b|[0-3]?\d[.\-/][0-3]?\d[.\-/](?:19|20)?\d\d\Z"
)
_DECIMAL = re.compile(r"\d{1,3}\.\d{5,9}")  # a coordinate, a measure

# Plans that are tried for a national number without a word beside it, in the order of their users.
REGIONS = ("US", "GB", "DE", "FR", "IN", "IT", "ES", "NL", "AU", "BR", "JP", "SE", "CH", "BE")

# And of these, for a number that begins with a trunk prefix and is grouped as telephone numbers are.
_MORE_REGIONS = (
    "AT",
    "IE",
    "NZ",
    "ZA",
    "KR",
    "TR",
    "TH",
    "VN",
    "PH",
    "SA",
    "AE",
    "IL",
    "TW",
    "UA",
    "MY",
    "EG",
)
_WRITTEN = re.compile(r"\d{1,5}(?:[ ./\-]{1,2}\d{1,9}){1,5}")

SHORTEST, LONGEST = 6, 15
NEAR = 48  # characters within which a weak word (`office`, `call`) counts


def score(form: str, near: Mapping[str, int], *, regions: Sequence[str] = REGIONS) -> tuple[float, str]:
    """How sure it is that a run of digits is a telephone number, and why; 0 when it is none.

    `form` is as written, extension included; `near` are the kinds of words about it (`context_words`).
    """
    body = _EXTENSION.sub("", form)
    digits = sum(character.isdigit() for character in body)
    if not SHORTEST <= digits <= LONGEST or _DATE.match(body) or _DECIMAL.fullmatch(body):
        return 0.0, ""
    said = "phone" in near
    hinted = said or near.get("phone_weak", NEAR + 1) <= NEAR
    if _INTERNATIONAL.match(body):
        return _international(body, said=hinted, regions=regions)
    return _national(body, digits, said=said, hinted=hinted, regions=regions)


def _international(body: str, *, said: bool, regions: Sequence[str]) -> tuple[float, str]:
    known = _plan(re.sub(r"\(0\)", "", body), None if body.startswith("+") else "US", regions)
    if known == "valid":
        return (0.98 if said else 0.95), "a number of an international numbering plan"
    if body.startswith("+") and known == "possible":
        return (0.9 if said else 0.75), "an international number of a possible length"
    return (
        (0.8, "an international number by its words") if said else (0.3 if known == "possible" else 0.0, "")
    )


def _national(
    body: str, digits: int, *, said: bool, hinted: bool, regions: Sequence[str]
) -> tuple[float, str]:
    is_trunk = body[0] == "0" and _TRUNK_GROUPS.fullmatch(body) is not None
    if _NORTH_AMERICAN.fullmatch(body) and not (is_trunk and _in_any_plan(body, _MORE_REGIONS)):
        if _plan(body, "US", ()) == "valid":
            return (0.95 if hinted else 0.8), "a North American number"
        return (0.85 if hinted else 0.6 if " " not in body else 0.4), "written like a North American number"
    if _AREA_IN_BRACKETS.fullmatch(body) and digits >= 7:
        return (0.9 if hinted else 0.6), "an area code in brackets"
    if _TRUNK_GROUPS.fullmatch(body) and 8 <= digits <= 12:
        if hinted:
            return 0.88, "groups of digits after a trunk prefix, by its words"
        more = _MORE_REGIONS if tuple(regions) == REGIONS else ()
        is_known = _in_any_plan(body, (*regions, *more))
        return (0.6 if is_known else 0.3), "a national number of a numbering plan"
    if hinted and _GROUPS.fullmatch(body):
        return 0.8, "groups of digits, by its words"
    if said and digits >= 7 and (body.isdigit() or _WRITTEN.fullmatch(body)):
        return 0.75, "digits, by its words"
    if hinted and body.isdigit() and body[0] == "0" and 9 <= digits <= 12 and _in_any_plan(body, regions):
        return 0.6, "digits of a numbering plan, by its words"
    return 0.0, ""


def _in_any_plan(body: str, regions: Sequence[str]) -> bool:
    return any(_plan(body, region, ()) == "valid" for region in regions)


def _plan(body: str, region: str | None, regions: Sequence[str]) -> str:
    """`valid`, `possible` or `unknown` under a region's dialling rules, or its own country code."""
    import phonenumbers

    text = "+" + body[2:] if region == "US" and body.startswith("00") and regions else body
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return "unknown"
    if phonenumbers.is_valid_number(number):
        return "valid"
    return "possible" if phonenumbers.is_possible_number(number) else "unknown"
