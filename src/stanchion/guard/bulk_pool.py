"""A bulk scan over several processes: batches of lines out, records back, in the order of the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import msgspec

from stanchion.files.rows import iter_lines
from stanchion.guard.bulk import BulkScanner
from stanchion.guard.bulk_files import Record, line_records

BATCH_LINES = 256
BATCHES_AHEAD = 4  # for each worker, so that memory stays flat

Batch = tuple[str, tuple[str, str], list[tuple[int, bytes]]]
_scanner: BulkScanner | None = None


def pooled_records(
    make_scanner: Callable[[], BulkScanner], path: Path, *, names: tuple[str, str], workers: int
) -> Iterator[Record]:
    """The records of a JSONL file, as `json_records` gives them; each process calls `make_scanner` once.

    Raises:
        DatasetError: when the file itself cannot be read on.
    """
    decode = msgspec.msgpack.Decoder(list[Record]).decode
    lines = iter_lines(path)
    waiting: deque[Future[bytes]] = deque()
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(make_scanner,)
    ) as pool:
        while batch := list(islice(lines, BATCH_LINES)):
            waiting.append(pool.submit(_judge, (str(path), names, batch)))
            if len(waiting) >= workers * BATCHES_AHEAD:
                yield from decode(waiting.popleft().result())
        while waiting:
            yield from decode(waiting.popleft().result())


def _start(make_scanner: Callable[[], BulkScanner]) -> None:
    global _scanner
    _scanner = make_scanner()


def _judge(batch: Batch) -> bytes:
    if _scanner is None:
        raise RuntimeError("the worker was not started")
    file, names, lines = batch
    return msgspec.msgpack.encode(line_records(_scanner, lines, file=file, names=names))
