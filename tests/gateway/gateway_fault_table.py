"""The faults that are not the provider's, and the page that shows the whole table."""

from __future__ import annotations

from gateway_faults import ALLOWED, OVERDUE, PROVIDER_FAULTS, REDACTED, Fault, Seen

CRASHED = Seen(500, "internal_error", "internal_error", "RuntimeError")
STOPPED = Seen(200, "", "blocked")
GONE = Seen(0, "", "client_gone", "client_gone")


def _fault(id: str, what: str, whole: Seen | None, streamed: Seen | None) -> Fault:
    return Fault(id=id, what=what, whole=whole, streamed=streamed)


REFUSED = Seen(502, "upstream_unavailable", "upstream_error", "unavailable")
OWN_FAULTS: tuple[Fault, ...] = (
    _fault("provider-down", "nobody listens at the provider's address", REFUSED, REFUSED),
    _fault("guard-raises-input", "the guard fails on a request", CRASHED, CRASHED),
    _fault("guard-raises-output", "the guard fails on an answer", CRASHED, CRASHED),
    _fault("guard-hangs-input", "the guard hangs on a request", OVERDUE, OVERDUE),
    _fault("guard-hangs-output", "the guard hangs on an answer", OVERDUE, OVERDUE),
    _fault("detector-raises", "a detector fails; its policy fails closed", STOPPED, STOPPED),
    _fault("detector-hangs", "a detector hangs; its policy fails closed", STOPPED, STOPPED),
    _fault("detector-slow", "a detector is slow and within its deadline", ALLOWED, ALLOWED),
    _fault("observer-raises", "an observer fails at the start and at the end", REDACTED, REDACTED),
    _fault("rollout-raises", "the rollout cannot take what became of a request", REDACTED, REDACTED),
    _fault("limits-raise", "the limits cannot take back what was reserved", REDACTED, REDACTED),
    _fault("store-locked", "the database stays locked", REDACTED, REDACTED),
    _fault("store-full", "the database has no room", REDACTED, REDACTED),
    _fault(
        "store-locked-first",
        "the database stays locked, and the feature wants the record first",
        Seen(503, "record_not_written", "internal_error", "record_not_written"),
        Seen(503, "record_not_written", "internal_error", "record_not_written"),
    ),
    _fault("gone-in-body", "the client goes away while it sends its body", Seen(0, "", "client_gone"), None),
    _fault(
        "body-stalls",
        "the client stops in the middle of its body",
        Seen(408, "body_too_slow", "deadline", "slow_body"),
        None,
    ),
    _fault("gone-waiting", "the client goes away while the provider is asked", GONE, GONE),
    _fault("gone-midway", "the client goes away in the middle of a stream", None, GONE),
    _fault("reads-nothing", "the client asks for a stream and never reads it", None, GONE),
    _fault("clock-back", "the clock of the machine jumps back by a day", REDACTED, REDACTED),
    _fault("clock-forward", "the clock of the machine jumps forward by a day", REDACTED, REDACTED),
)
OWN = {fault.id: fault for fault in OWN_FAULTS}

_INTRO = """\
# What happens when something fails

Each line is a fault that the test suite makes on real sockets, with what the client is told and what the one
record of the request says. The table is generated from the one that the tests read
(`tests/gateway/gateway_fault_table.py`), and a test compares the two.

For every line the tests also require:

* nothing that the policy stops, and no prose of the provider, reaches the client;
* there is exactly one record;
* an error has the shape of the API that was asked; in a stream that has begun it is the last event;
* no connection, task or file descriptor stays behind.

A status of 200 with an error means that the stream had begun. Where a stream has not begun, the status in the
table is the one that is sent. A status of `-` means that nobody is there to be told.

A provider is given up after it said nothing for `idle_s`; the whole request ends at the feature's
`deadline_s`. A client that takes no byte of its answer for 30 seconds is treated as gone. While the database
cannot be written, records go to a file beside it every `records.every_s` seconds, and into the database when
it is back.
"""


def _cell(seen: Seen | None) -> str:
    return (
        "does not apply"
        if seen is None
        else str(seen).replace("0; ", "-; ", 1)
        if not seen.status
        else str(seen)
    )


def _rows(faults: tuple[Fault, ...]) -> list[str]:
    rows = ["| fault | whole answer | stream |", "|---|---|---|"]
    return rows + [f"| {fault.what} | {_cell(fault.whole)} | {_cell(fault.streamed)} |" for fault in faults]


def page() -> str:
    """The page as it is in the documentation."""
    lines = [
        _INTRO,
        "## The provider",
        "",
        *_rows(PROVIDER_FAULTS),
        "",
        "## The guard, the store, the client, the clock",
        "",
        *_rows(OWN_FAULTS),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parents[2] / "docs" / "explanation" / "gateway-faults.md").write_text(page(), "utf-8")
