"""Moments as whole microseconds since 1970: exact on both databases, and in canonical JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stanchion.core.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970.

    Raises:
        UsageError: for a time without a zone, which could be any of 26 hours.
    """
    if moment.tzinfo is None:
        raise UsageError(f"the time {moment.isoformat()} has no time zone.", hint="Use UTC.")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_us(microseconds: int) -> datetime:
    """The moment, in UTC."""
    return _EPOCH + microseconds * _MICROSECOND
