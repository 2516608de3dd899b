"""Walking the hash chain of a run log: what is read is checked, record by record, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stanchion.core.codec import DIGEST_PREFIX
from stanchion.core.errors import IntegrityError
from stanchion.evals.results import OutcomeCounts
from stanchion.evals.runlog_segments import Frame, Segments, next_hash

_HINT = "Nothing that this log says can be relied on: restore the run's folder from a copy, or run it again."


class ChainWalk:
    """One walk over the frames of a run; each one is given only when it fits the chain.

    `count` records were read so far, and `head` is the chain hash behind the last of them.
    """

    def __init__(self, segments: Segments, *, start: bytes, until: tuple[int, int] | None = None) -> None:
        self._segments = segments
        self._run = segments.folder.parent
        self._until = until
        self.head = start
        self.count = 0

    def __iter__(self) -> Iterator[Frame]:
        """The frames up to `until` (segment, byte offset), or all of them.

        Raises:
            IntegrityError: at the first record that does not fit the chain.
        """
        for number in self._segments.numbers():
            for frame in self._segments.frames(number):
                offset = frame.position.offset
                if self._until is not None and (number, offset) >= self._until:
                    return
                self.count += 1
                self.head = next_hash(self.head, frame.body)
                if self.head != frame.chain:
                    where = f"record {self.count:,} (segment {number}, byte {offset})"
                    raise changed(self._run, f"{where} does not fit the chain")
                yield frame

    def check_end(self, expected: str) -> None:
        """Raise IntegrityError unless the walk ended at this digest."""
        if expected != DIGEST_PREFIX + self.head.hex():
            raise changed(
                self._run,
                f"after record {self.count:,} the chain does not end at the hash that was written down; "
                "records are missing, or were added",
            )


def changed(run: Path, what: str) -> IntegrityError:
    """What to say of a log that is not as it was written."""
    return IntegrityError(f"run {run}: the run log was changed: {what}.", hint=_HINT)


def check_counts(run: Path, seen: dict[str, int], told: OutcomeCounts) -> None:
    """Raise IntegrityError where the results that were read are not as many as the summary says."""
    for name in told.__struct_fields__:
        if seen.get(name, 0) != getattr(told, name):
            words = f"{seen.get(name, 0):,} {name}, the summary says {getattr(told, name):,}"
            raise changed(run, f"its records hold {words}")
