import errno
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from eval_doubles import FunctionTarget, harmless, header_for, numbered, result
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import IntegrityError, UnavailableError, UnknownNameError, UsageError
from stanchion.evals.results import Outcome, OutcomeCounts, RunSummary
from stanchion.evals.runlog import RunFolder, RunReader, RunWriter
from stanchion.evals.runlog_index import RunIndex

HEADER = header_for(numbered(3), FunctionTarget(harmless))
SMALL = 4_000  # bytes per segment: many segments from few results


def summary() -> RunSummary:
    return RunSummary(run_id="run_1", finished_at=HEADER.started_at, counts=OutcomeCounts())


def write(folder: Path, count: int, *, finish: bool = True) -> None:
    with RunWriter.create(folder, HEADER, segment_bytes=SMALL) as writer:
        for number in range(count):
            writer.append(result(number, reason="x" * (number % 50)))
        if finish:
            writer.finish(summary())


def read(folder: Path) -> list[str]:
    with RunReader(folder) as reader:
        return [one.case_id for one in reader.results()]


def live_segment(folder: Path) -> Path:
    return max(folder.glob("segments/*.jsonl"))


def test_what_was_written_is_read_back_whole_and_in_order(tmp_path: Path) -> None:
    write(tmp_path, 300)
    with RunReader(tmp_path) as reader:
        assert list(reader.results()) == [result(n, reason="x" * (n % 50)) for n in range(300)]
        assert reader.header == HEADER
        assert reader.verify() == 300
    assert len(list(tmp_path.glob("segments/*.zst"))) > 10


def test_a_case_is_found_in_sealed_and_live_segments(tmp_path: Path) -> None:
    write(tmp_path, 200, finish=False)
    with RunReader(tmp_path) as reader:
        for number in (0, 1, 57, 150, 199):
            assert [one.case_id for one in reader.find(f"case-{number:05}")] == [f"case-{number:05}"]
        assert reader.find("case-00999") == []
        assert reader.find("case-000") == [], "an ambiguous beginning finds nothing"


def test_results_can_be_filtered_by_outcome(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, HEADER) as writer:
        for number in range(10):
            writer.append(result(number, Outcome.UNSAFE if number % 3 == 0 else Outcome.SAFE))
    with RunReader(tmp_path) as reader:
        assert [one.case_id[-1] for one in reader.results(outcomes=[Outcome.UNSAFE])] == ["0", "3", "6", "9"]
        assert reader.counts() == {"safe": 6, "unsafe": 4}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 60), st.integers(0, 400), st.booleans())
def test_any_cut_tail_loses_only_the_records_it_hits(
    tmp_path_factory: pytest.TempPathFactory, count: int, cut: int, index: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    write(folder, count, finish=False)
    live = live_segment(folder)
    size = live.stat().st_size
    os.truncate(live, max(0, size - cut))
    if not index:
        for path in folder.glob("index.sqlite*"):
            path.unlink()
    kept = read(folder)
    assert kept == [f"case-{n:05}" for n in range(len(kept))]
    assert count - len(kept) <= cut // 100 + 1 if cut else len(kept) == count
    with RunWriter.resume(folder, segment_bytes=SMALL) as writer:
        done = {key for key, _ in writer.done_keys()}
        for number in range(count):
            if f"case-{number:05}" not in done:
                writer.append(result(number))
        writer.finish(summary())
    assert sorted(read(folder)) == [f"case-{n:05}" for n in range(count)]
    with RunReader(folder) as reader:
        assert reader.verify() == count


@pytest.mark.parametrize(
    "garbage",
    [
        b"{",
        b'{"h":"zz","r":{}}\n',
        b"\x00\xff\n",
        b"\n",
        b'{"h":"' + b"0" * 64 + b'","r":{"case_id":"x","outcome":"safe"}}\n',
    ],
)
def test_garbage_behind_the_last_record_is_cut(tmp_path: Path, garbage: bytes) -> None:
    write(tmp_path, 10, finish=False)
    with live_segment(tmp_path).open("ab") as file:
        file.write(garbage)
    with RunWriter.resume(tmp_path) as writer:
        writer.append(result(10))
        writer.finish(summary())
    assert read(tmp_path) == [f"case-{n:05}" for n in range(11)]


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    write(tmp_path, 50)
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    (tmp_path / "index.sqlite").write_bytes(b"this is no database, it is a text of some length\n" * 50)
    assert len(read(tmp_path)) == 50


def test_an_index_that_goes_further_than_the_segments_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path, 30, finish=False)
    os.truncate(live_segment(tmp_path), 0)
    kept = read(tmp_path)
    assert kept == [f"case-{n:05}" for n in range(len(kept))]
    assert len(kept) < 30


def test_a_process_killed_between_sealing_and_removing_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, 100, finish=False)
    live = live_segment(tmp_path)
    copy = live.read_bytes()
    RunWriter.resume(tmp_path, segment_bytes=SMALL).finish(summary())
    live.write_bytes(copy)  # as if unlink had not been reached
    assert len(read(tmp_path)) == 100
    with RunWriter.resume(tmp_path, segment_bytes=SMALL) as writer:
        writer.append(result(100))
    assert read(tmp_path) == [f"case-{n:05}" for n in range(101)]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x20
    path.write_bytes(bytes(data))


def test_a_changed_record_is_found(tmp_path: Path) -> None:
    write(tmp_path, 20, finish=False)
    live = live_segment(tmp_path)
    flip(live, live.read_bytes().index(b"case-") + 1)
    with RunReader(tmp_path) as reader, pytest.raises(IntegrityError, match="does not fit the chain"):
        reader.verify()


def test_a_removed_segment_is_found(tmp_path: Path) -> None:
    write(tmp_path, 200)
    sorted(tmp_path.glob("segments/*.zst"))[1].unlink()
    with RunReader(tmp_path) as reader, pytest.raises(IntegrityError):
        reader.verify()


def test_cut_off_records_of_a_finished_run_are_found(tmp_path: Path) -> None:
    write(tmp_path, 200)
    sorted(tmp_path.glob("segments/*.zst"))[-1].unlink()
    with RunReader(tmp_path) as reader, pytest.raises(IntegrityError, match="does not end at the hash"):
        reader.verify()


def test_records_of_another_run_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path / "a", 5, finish=False)
    other = header_for(numbered(4), FunctionTarget(harmless))
    with RunWriter.create(tmp_path / "b", other):
        pass
    shutil.copy(live_segment(tmp_path / "a"), tmp_path / "b" / "segments")
    assert read(tmp_path / "b") == []


def test_a_later_result_takes_the_earlier_ones_place(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, HEADER) as writer:
        writer.append(result(0, Outcome.SKIPPED))
        writer.append(result(1))
    with RunWriter.resume(tmp_path) as writer:
        assert list(writer.done_keys()) == [("case-00001", 0)]
        writer.append(result(0, Outcome.UNSAFE))
    for rebuilt in (False, True):
        if rebuilt:
            for path in tmp_path.glob("index.sqlite*"):
                path.unlink()
        with RunReader(tmp_path) as reader:
            assert [(r.case_id[-1], r.outcome.value) for r in reader.results()] == [
                ("1", "safe"),
                ("0", "unsafe"),
            ]
            assert reader.counts() == {"safe": 1, "unsafe": 1}


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, HEADER) as writer:
        writer.append(result(0))
        with pytest.raises(UsageError, match="is being written"):
            RunWriter.resume(tmp_path)
        with RunReader(tmp_path) as reader:
            assert reader.is_being_written
            writer.flush()
            assert len(list(reader.results())) == 1


def append_many(writer: RunWriter, count: int) -> None:
    for number in range(count):
        writer.append(result(number))


def test_a_full_disk_is_told_and_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.write, [900]

    def limited(file: int, data: bytes) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = data[: left[0]]
        left[0] -= len(taken)
        return real(file, taken)

    with RunWriter.create(tmp_path, HEADER) as writer:
        monkeypatch.setattr(os, "write", limited)
        with pytest.raises(UnavailableError, match="No space left") as caught:
            append_many(writer, 100)
        monkeypatch.undo()
    assert "--resume" in str(caught.value)
    kept = read(tmp_path)
    assert kept == [f"case-{n:05}" for n in range(len(kept))]
    assert 2 <= len(kept) <= 8


def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    write(tmp_path, 5, finish=False)
    assert stat.S_IMODE(live_segment(tmp_path).stat().st_mode) == 0o600


def test_a_read_only_run_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, 20)
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    (tmp_path / "lock").unlink()
    modes = {path: path.stat().st_mode for path in (tmp_path, *tmp_path.rglob("*"))}
    for path in modes:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert len(read(tmp_path)) == 20
    finally:
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run"):
        RunReader(tmp_path)
    write(tmp_path, 1)
    with pytest.raises(UsageError, match="holds a run already"):
        write(tmp_path, 1)


def test_runs_are_found_by_id_by_its_beginning_and_as_latest(tmp_path: Path) -> None:
    runs = RunFolder(tmp_path)
    for name in ("run_aa1", "run_ab2", "run_b3"):
        write(runs.path(name), 1)
    assert runs.find("run_aa1") == runs.find("run_aa") == tmp_path / "run_aa1"
    assert runs.find("latest") == tmp_path / "run_b3"
    assert runs.find(str(tmp_path / "run_ab2")) == tmp_path / "run_ab2"
    for wrong in ("run_a", "nothing"):
        with pytest.raises(UnknownNameError):
            runs.find(wrong)


def test_an_index_that_cannot_be_written_costs_nothing_but_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with RunWriter.create(tmp_path, HEADER) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(RunIndex, "add", full)
            append_many(writer, 50)
            writer.flush()
        append_many(writer, 50)
        writer.finish(summary())
    assert len(read(tmp_path)) == 50, "the later fifty take the place of the earlier"
    with RunReader(tmp_path) as reader:
        assert reader.summary is not None
        assert reader.summary.counts == OutcomeCounts(safe=50)
    with RunReader(tmp_path) as reader:
        assert reader.verify() == 100
