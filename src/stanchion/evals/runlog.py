"""The run log: everything an eval wrote down, safe against a killed process and open to random access.

A run is a folder: `run.json` (header), `segments/` (see `runlog_segments`), `index.sqlite` (derived) and
`summary.json`, which is there when the run has ended.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from stanchion.core.codec import DIGEST_PREFIX
from stanchion.core.errors import IntegrityError, UnknownNameError, UsageError
from stanchion.evals.results import CaseResult, Outcome, OutcomeCounts, RunHeader, RunSummary
from stanchion.evals.runlog_chain import ChainWalk, changed
from stanchion.evals.runlog_index import Entry, Reached, RunIndex, open_index
from stanchion.evals.runlog_segments import SEGMENT_BYTES, Segments, SegmentWriter, next_hash, storage_error

log = logging.getLogger(__name__)
FORMAT = "stanchion.run/1"
_HEADER = "run.json"
_SUMMARY = "summary.json"
_BATCH = 1000
_T = TypeVar("_T")


class _HeaderFile(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    header: RunHeader


class _Key(msgspec.Struct, frozen=True):
    """The part of a record that the index needs."""

    case_id: str
    outcome: Outcome
    pairing_key: str = ""
    repeat: int = 0


class RunReader:
    """A run to read from, finished or not.

    Raises:
        UsageError: when the folder is no run.
        IntegrityError: when the segments were changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = _read_header(folder)
        self._segments = Segments(folder / "segments")
        self._decoder = msgspec.json.Decoder(CaseResult)
        self._index = open_index(folder / "index.sqlite")
        with _Lock(folder, wait=False) as lock:
            self.is_being_written = not lock.is_held
            if lock.is_held:
                catch_up(self._index, self._segments, self.header)

    @property
    def summary(self) -> RunSummary | None:
        """How the run ended; None when it was cut off or still goes on."""
        path = self.folder / _SUMMARY
        return _decode(path, RunSummary) if path.exists() else None

    def results(self, *, outcomes: Iterable[Outcome] = ()) -> Iterator[CaseResult]:
        """The current result of every case in the order they were written, streaming.

        A result that a resumed run replaced is left out. The hash chain is walked on the way: a caller that
        reads to the end has read what was written, all of it.

        Raises:
            IntegrityError: at the first record that does not fit the chain, or at the end when the chain does
                not end where the summary says.
        """
        chosen = frozenset(outcomes)
        replaced = self._index.superseded()
        reached = self._index.reached()
        if reached is None:
            return
        summary = self.summary
        walk = ChainWalk(
            self._segments,
            start=chain_start(self.header),
            until=None if summary is not None else (reached.segment, reached.offset),
        )
        without: set[tuple[str, int]] = set()  # keys whose replaced result was left out, until the later one
        for frame in walk:
            result = self._decoder.decode(frame.body)
            if frame.position[:2] in replaced:
                without.add(result.key)
                continue
            without.discard(result.key)
            if not chosen or result.outcome in chosen:
                yield result
        walk.check_end(summary.results_digest if summary else DIGEST_PREFIX + reached.head.hex())
        if without:
            raise changed(self.folder, f"{len(without):,} results are said to be replaced, and by nothing")

    def find(self, name: str) -> list[CaseResult]:
        """The results of one case, one per repeat, by pairing key, case id, or the beginning of an id."""
        return [self._decoder.decode(self._segments.read(e.position)) for e in self._index.find(name)]

    def counts(self) -> dict[str, int]:
        """How many results each outcome has."""
        return self._index.counts()

    def verify(self) -> int:
        """Walk the hash chain from the header on; gives the number of records.

        Raises:
            IntegrityError: at the first record that does not fit, or when the end is not the one that the
                summary names.
        """
        walk = ChainWalk(self._segments, start=chain_start(self.header))
        for _ in walk:
            pass
        summary = self.summary
        if summary is not None:
            walk.check_end(summary.results_digest)
        return walk.count

    def close(self) -> None:
        """Let go of the index."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunWriter:
    """A run being written; one process at a time, by a lock on the folder.

    `append` is durable against a killed process when it returns; `sync` against a power cut.
    """

    def __init__(
        self, folder: Path, header: RunHeader, *, lock: _Lock, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.folder = folder
        self.header = header
        self._lock = lock
        self._index = open_index(folder / "index.sqlite")
        segments = Segments(folder / "segments")
        reached = catch_up(self._index, segments, header)
        if segments.sealed_path(reached.segment).exists():
            segments.live_path(reached.segment).unlink(missing_ok=True)
            reached = Reached(reached.segment + 1, 0, reached.head)
        self._segments = SegmentWriter(
            segments.folder,
            reached.head,
            number=reached.segment,
            offset=reached.offset,
            segment_bytes=segment_bytes,
        )
        self._encoder = msgspec.json.Encoder()
        self._pending: list[Entry] = []
        self._is_indexed = True

    @classmethod
    def create(cls, folder: Path, header: RunHeader, *, segment_bytes: int = SEGMENT_BYTES) -> RunWriter:
        """Start a run in a new folder.

        Raises:
            UsageError: when the folder holds a run already.
        """
        if (folder / _HEADER).exists():
            raise UsageError(f"{folder} holds a run already.", hint="Resume it, or choose another folder.")
        try:
            (folder / "segments").mkdir(parents=True, exist_ok=True)
            lock = _Lock(folder, wait=False).__enter__()
            _write_atomically(folder / _HEADER, _HeaderFile(format=FORMAT, header=header))
        except OSError as error:
            raise storage_error(folder, error) from error
        return cls(folder, header, lock=lock, segment_bytes=segment_bytes)

    @classmethod
    def resume(cls, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> RunWriter:
        """Go on with a run: a torn tail is cut, the index brought up to date, the old summary removed.

        Raises:
            UsageError: when another process writes it.
        """
        header = _read_header(folder)
        lock = _Lock(folder, wait=False).__enter__()
        if not lock.is_held:
            raise UsageError(f"run {header.run_id} is being written by another process.", hint="Wait for it.")
        writer = cls(folder, header, lock=lock, segment_bytes=segment_bytes)
        (folder / _SUMMARY).unlink(missing_ok=True)
        return writer

    @property
    def head(self) -> str:
        """The digest of everything written so far, in order."""
        return DIGEST_PREFIX + self._segments.head.hex()

    def done_keys(self, *, again: Iterable[Outcome] = (Outcome.SKIPPED,)) -> Iterator[tuple[str, int]]:
        """The keys that need not be asked; those with an outcome in `again` are left out."""
        self.flush()
        return self._index.keys(without=again)

    def counts(self) -> dict[str, int]:
        """How many results each outcome has."""
        self.flush()
        return self._index.counts()

    def append(self, result: CaseResult) -> None:
        """Write one result.

        Raises:
            UnavailableError: when the disk refuses.
        """
        position = self._segments.append(self._encoder.encode(result))
        key = result.pairing_key or result.case_id
        self._pending.append(Entry(key, result.repeat, result.case_id, result.outcome.value, position))
        if len(self._pending) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Bring the index up to date; where it cannot be written, the next reader does that."""
        segments = self._segments
        if self._pending and self._is_indexed:
            try:
                self._index.add(self._pending, Reached(segments.number, segments.offset, segments.head))
            except sqlite3.Error as error:  # derived data: the segments hold everything
                self._is_indexed = False
                log.warning("run %s: the index is not kept: %s", self.header.run_id, error)
        self._pending.clear()

    def sync(self) -> None:
        """Put what was appended on the disk."""
        self._segments.sync()

    def finish(self, summary: RunSummary) -> None:
        """Seal the last segment and write the summary, with the head of the chain and the counts in it.

        The counts are those of the log: a result of an earlier process that was to be asked again, and was
        not, is still in it.
        """
        self.flush()
        if not self._is_indexed:
            self._index.close()
            self._index = RunIndex(None)
            catch_up(self._index, Segments(self.folder / "segments"), self.header)
        counts = OutcomeCounts(**self._index.counts())
        try:
            self._segments.close(seal=True)
            _write_atomically(
                self.folder / _SUMMARY,
                msgspec.structs.replace(summary, counts=counts, results_digest=self.head),
            )
        except OSError as error:
            raise storage_error(self.folder, error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the files; a run that was not finished can be resumed."""
        try:
            self.flush()
        finally:
            self._segments.close()
            self._index.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def chain_start(header: RunHeader) -> bytes:
    """The hash that the first record follows."""
    return bytes.fromhex(header.digest.removeprefix(DIGEST_PREFIX))


def catch_up(index: RunIndex, segments: Segments, header: RunHeader) -> Reached:
    """Put into the index what the segments hold beyond it; gives the end of the last whole record.

    Raises:
        IntegrityError: when a record in the middle does not fit the chain.
    """
    start = Reached(1, 0, chain_start(header))
    reached = index.reached() or start
    if not _fits(segments, reached):
        index.clear()
        reached = start
    key_of = msgspec.json.Decoder(_Key)
    batch: list[Entry] = []
    numbers = [number for number in segments.numbers() if number >= reached.segment]
    for number in numbers:
        offset = reached.offset if number == reached.segment else 0
        reached = Reached(number, offset, reached.head)
        for frame in segments.frames(number, start=offset):
            head = next_hash(reached.head, frame.body)
            if head != frame.chain:
                break
            record = key_of.decode(frame.body)
            name = record.pairing_key or record.case_id
            batch.append(Entry(name, record.repeat, record.case_id, record.outcome.value, frame.position))
            reached = Reached(number, frame.position.end, head)
            if len(batch) >= _BATCH:
                index.add(batch, reached)
                batch.clear()
        may_be_torn = number == numbers[-1] and segments.live_path(number).exists()
        if not may_be_torn and not _ends_at(segments, reached):
            raise IntegrityError(
                f"run log {segments.folder}: the run log was changed: segment {number}, "
                f"byte {reached.offset}.",
                hint="Only the tail of the last segment may be torn. Restore the folder from a copy.",
            )
    index.add(batch, reached)
    return reached


def _fits(segments: Segments, reached: Reached) -> bool:
    """Whether the segments go at least as far as the index says."""
    live = segments.live_path(reached.segment)
    if live.exists():
        return live.stat().st_size >= reached.offset
    return segments.sealed_path(reached.segment).exists() or reached.offset == 0


def _ends_at(segments: Segments, reached: Reached) -> bool:
    return next(segments.frames(reached.segment, start=reached.offset), None) is None


def _read_header(folder: Path) -> RunHeader:
    path = folder / _HEADER
    if not path.exists():
        raise UsageError(
            f"{folder} is not a run: it has no {_HEADER}.", hint="List runs with `stanchion eval show`."
        )
    kept = _decode(path, _HeaderFile)
    if kept.format != FORMAT:
        raise UsageError(
            f"{path}: format {kept.format!r} is not {FORMAT!r}.", hint="Use the version that wrote it."
        )
    return kept.header


def _decode(path: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"{path} cannot be read: {error}.", hint="Restore the run's folder.") from error


def _write_atomically(path: Path, record: Any) -> None:
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class _Lock:
    """An advisory lock on a run's folder; `is_held` tells whether it was free."""

    def __init__(self, folder: Path, *, wait: bool) -> None:
        self._path = folder / "lock"
        self._wait = wait
        self._file = -1
        self.is_held = False

    def __enter__(self) -> _Lock:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # a read-only folder has no writer
            self.is_held = True
            return self
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
            self.is_held = True
        except BlockingIOError:
            os.close(self._file)
            self._file = -1
        return self

    def release(self) -> None:
        """Give it back; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.is_held = False

    def __exit__(self, *_: object) -> None:
        self.release()


class RunFolder:
    """All runs below one folder, by default `.stanchion/runs`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, run_id: str) -> Path:
        """Where a run of this id lies."""
        return self.root / run_id

    def ids(self) -> list[str]:
        """The runs' ids, oldest first (ids sort by time)."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{_HEADER}"))

    def find(self, name: str) -> Path:
        """The folder of a run: a path, an id, the unambiguous beginning of one, or `latest`.

        Raises:
            UsageError: when there is none, or more than one.
        """
        if (Path(name) / _HEADER).exists():
            return Path(name)
        ids = self.ids()
        if not ids:
            raise UsageError(
                f"there are no runs in {self.root}.", hint="Make one: stanchion eval run suite.yaml"
            )
        if name == "latest" and ids:
            return self.path(ids[-1])
        near = [run_id for run_id in ids if run_id == name or run_id.startswith(name)]
        if name in near or len(near) == 1:
            return self.path(name if name in near else near[0])
        raise UnknownNameError("run", name, near or ids, where=str(self.root))
