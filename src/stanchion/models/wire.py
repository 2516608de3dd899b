"""Reading JSON bodies from outside: every access says where it stood when the shape was wrong.

Messages name the path and the type that was found, never the value: bodies hold people's words.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from stanchion.core.codec import digest_bytes, digest_text
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Interaction, Media, Opaque
from stanchion.core.json_schema import schema_fault
from stanchion.core.origin import Origin

JsonObject = dict[str, Any]
MOST_TOKENS = 10**12  # more than any exchange has; the store and all sums hold it
_SLUG = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}\Z")


class WireError(UsageError):
    """A body does not have the documented shape."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded request: the exchange, how the answer is wanted, and the parameters we have no word for."""

    interaction: Interaction
    stream: bool = False
    include_usage: bool = False
    extras: JsonObject = msgspec.field(default_factory=dict)


@contextmanager
def as_unavailable(api: str) -> Iterator[None]:
    """Turn a wrong shape in an answer into `UnavailableError`: the endpoint's fault, not the caller's."""
    try:
        yield
    except WireError as error:
        raise UnavailableError(
            f"the answer does not have the shape of the {api} API: {error.message}",
            hint="Check the base URL and the configured `api`.",
            is_retryable=False,
        ) from error


def as_object(value: Any, where: str) -> JsonObject:
    """The value as a JSON object."""
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    return value


def as_schema(value: Any, where: str) -> JsonObject:
    """The value as the JSON schema of an object; one that no check could read is refused."""
    schema = as_object(value, where)
    fault = schema_fault(schema)
    if fault:
        raise WireError(f"{where}{fault}")
    return schema


def as_list(value: Any, where: str) -> list[Any]:
    """The value as a JSON array; absent and null are an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(where, "a list", value)
    return value


def as_text(value: Any, where: str) -> str:
    """The value as a string."""
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    return value


def maybe_text(value: Any, where: str) -> str | None:
    """The value as a string; absent and null are None."""
    return None if value is None else as_text(value, where)


def maybe_number(value: Any, where: str) -> float | None:
    """The value as a number; absent and null are None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, "a number", value)
    return value


def maybe_int(value: Any, where: str) -> int | None:
    """The value as a whole number; absent and null are None."""
    return None if value is None else as_int(value, where)


def maybe_count(value: Any, where: str) -> int | None:
    """The value as a count of tokens; None where it is absent, null, or nothing that can be a count.

    Of a provider that counts below zero, or in trillions, no bill, limit or record can tell anything.
    """
    count = maybe_int(value, where)
    return count if count is not None and 0 <= count <= MOST_TOKENS else None


def told_count(value: Any, where: str) -> int | UnsetType:
    """As `maybe_count`, with UNSET for None: for counts that few vendors tell."""
    count = maybe_count(value, where)
    return UNSET if count is None else count


def as_int(value: Any, where: str) -> int:
    """The value as a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(where, "a whole number", value)
    return value


def maybe_flag(value: Any, where: str) -> bool:
    """The value as true or false; absent and null are false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def without_logprobs(fields: JsonObject) -> None:
    """Refuse a request for the tokens beside the answer: they are words of it that nothing checks."""
    for name in ("logprobs", "top_logprobs"):
        if fields.get(name) not in (None, False, 0):
            raise WireError(
                f"{name}: the tokens of an answer are not given, since they would pass unchecked.",
                hint="Leave it out.",
            )


def texts(value: Any, where: str) -> tuple[str, ...]:
    """A string or a list of strings, as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(as_text(item, f"{where}[{n}]") for n, item in enumerate(as_list(value, where)))


def _wrong(where: str, wanted: str, value: Any) -> WireError:
    found = "nothing" if value is None else type(value).__name__
    return WireError(f"{where}: {wanted} is needed here, found {found}.")


def slug(value: Any) -> str | None:
    """An error code that is safe to show, else None: words of letters with `_.-[]`, at most 64 characters.

    At most four digits, and none beside capital letters: a key or a card's number is no error code.
    """
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    digits = sum(character.isdigit() for character in text)
    if digits > 4 or (digits and any(character.isupper() for character in text)):
        return None
    return text if _SLUG.match(text) else None


def error_label(body: Any) -> str:
    """What an error body says about itself that is safe to show: type, code, parameter, never its prose."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return slug(error) or ""
    if not isinstance(error, dict):
        return ""
    labels = (slug(error.get(key)) for key in ("type", "code", "param"))
    return ", ".join(dict.fromkeys(label for label in labels if label))


def error_object(what: str, body: Any) -> UnavailableError:
    """The error for a body that is an error object though the status said success."""
    return UnavailableError(
        f"{what} ({error_label(body) or 'without a code'}).", hint="Look at the endpoint's log, or try again."
    )


def media_from_url(
    url: str,
    *,
    origin: Origin,
    fallback_type: str,
    detail: str | None = None,
    name: str | None = None,
    extra: Opaque | None = None,
) -> Media:
    """A media part; the digest is over the bytes of a data URL, and over the URL itself otherwise."""
    head, _, body = url.partition(",")
    media_type, digest = fallback_type, ""
    if head.startswith("data:") and head.endswith(";base64"):
        media_type = head.removeprefix("data:").removesuffix(";base64").partition(";")[0] or fallback_type
        try:
            digest = digest_bytes(base64.b64decode(body, validate=True))
        except (binascii.Error, ValueError):
            digest = ""
    return Media(
        media_type=media_type,
        origin=origin,
        digest=digest or digest_text(url),
        location=url,
        detail=detail,
        name=name,
        extra=extra,
    )


def data_url(media_type: str, data: str) -> str:
    """A data URL around base64 text."""
    return f"data:{media_type};base64,{data}"


def split_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 text of a data URL; None for any other URL."""
    head, separator, body = url.partition(",")
    if not (separator and head.startswith("data:") and head.endswith(";base64")):
        return None
    return head.removeprefix("data:").removesuffix(";base64"), body


def location_of(media: Media) -> str:
    """The URL of a media part.

    Raises:
        UsageError: when only its digest is left: it cannot be sent any more.
    """
    if media.location is None:
        raise UsageError(
            f"a {media.media_type} part has no location any more, only a digest; it cannot be sent."
        )
    return media.location


def own_payload(part: Opaque, *, api: str) -> tuple[str, Any]:
    """Kind (without the vendor's prefix) and payload of an opaque part of this vendor.

    Raises:
        UsageError: for another vendor's part: it has no meaning here, and dropping it would be silent.
    """
    vendor, _, kind = part.kind.partition(":")
    if vendor != api or not kind:
        raise UsageError(
            f"a part of kind {part.kind!r} cannot be said in the {api} API.",
            hint="Remove it, or use the vendor's own API.",
        )
    return kind, part.payload
