"""What a client is told whose ticket brings nothing."""

from __future__ import annotations

from stanchion.gateway.ports import Outcome, Refused


def not_found() -> Refused:
    """For a ticket that is not there, or is somebody else's: both alike."""
    return Refused(
        Outcome.INVALID,
        status=404,
        code="ticket_not_found",
        message="there is no such ticket for this caller.",
        hint="Tickets are redeemed by who got them, for a while after they were approved.",
    )


def redeemed_already() -> Refused:
    """For a ticket that brought its answer before."""
    return Refused(
        Outcome.INVALID,
        status=409,
        code="ticket_redeemed",
        message="this ticket was redeemed already.",
        hint="One approval is for one answer: ask again without the ticket, and have the new one approved.",
    )


def another_question() -> Refused:
    """For a ticket that comes with another request than the one that it was given for."""
    return Refused(
        Outcome.INVALID,
        status=409,
        code="ticket_of_another_request",
        message="this ticket was given for another request.",
        hint="Send the request again as it was, with the ticket in its header.",
    )
