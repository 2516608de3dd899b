"""What goes wrong on a connection to a provider, in the words that people read."""

from __future__ import annotations

from stanchion.core.errors import UnavailableError
from stanchion.models.http_errors import too_large_error


class LinkFault(Exception):
    """An exchange that failed below HTTP's statuses. `why` and `hint` are for people."""

    why = "the connection broke"
    hint = "Try again; look at the endpoint's log."
    is_retryable = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class LinkBroken(LinkFault):
    """It ended, or fell silent, in the middle; `had_bytes` says whether some of an answer had come."""

    def __init__(self, detail: str, *, had_bytes: bool) -> None:
        super().__init__(detail)
        self.had_bytes = had_bytes


class Unreachable(LinkFault):
    """No connection."""

    why = "it cannot be reached"
    hint = "Is it running, and are host and port right?"


class UnknownHost(LinkFault):
    """Its name leads nowhere."""

    why = "its host name is not known"
    hint = "Check the base URL and the network."


class Untrusted(LinkFault):
    """TLS failed."""

    why = "its TLS certificate is not accepted"
    hint = "Check the host name and the CA."
    is_retryable = False


class MalformedAnswer(LinkFault):
    """What came is no answer that has one meaning."""

    why = "its answer is not sound HTTP"
    hint = "Is that an HTTP/1.1 endpoint? Look at what stands in front of it."


class TooLongAnswer(LinkFault):
    """More bytes than we are willing to hold."""

    def __init__(self) -> None:
        super().__init__("too long")


def fault_error(what: str, fault: LinkFault, *, limit: int) -> UnavailableError:
    """The error that the rest of the gateway knows; `what` names the provider."""
    if isinstance(fault, TooLongAnswer):
        return too_large_error(what, limit)
    return UnavailableError(
        f"{what}: {fault.why} ({fault.detail}).", hint=fault.hint, is_retryable=fault.is_retryable
    )
