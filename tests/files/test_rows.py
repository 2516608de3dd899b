"""Rows as streams: every format, every limit, every kind of damage, with file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanchion.core.errors import DatasetError, MissingExtraError
from stanchion.files.rows import Row, RowLimits, iter_lines, iter_rows, row_format_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [{"id": 1, "text": "é😀"}, {"id": 2, "text": "a\nb"}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write_zip(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def rows(path: Path, **options: Any) -> list[Row]:
    return list(iter_rows(path, **options))


def refused(path: Path, **options: Any) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        rows(path, **options)
    assert caught.value.file == str(path)
    return caught.value


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("d.jsonl", bytes),
        ("d.ndjson", bytes),
        ("D.JSONL", bytes),
        ("d.jsonl.gz", gzip.compress),
        ("d.jsonl.zst", zstd.compress),
    ],
)
def test_jsonl_plain_and_packed(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    path.write_bytes(pack(JSONL))
    assert [row.value for row in rows(path)] == ROWS
    assert [row.line for row in rows(path)] == [1, 2]


def test_zip_takes_its_format_from_its_only_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "d.zip", {"x/d.jsonl": JSONL, "x/": b"", "__MACOSX/._d.jsonl": b"?"})
    assert [row.value for row in rows(path)] == ROWS
    assert row_format_of(write_zip(tmp_path / "e.zip", {"e.csv": b"a\n1\n"})) == "csv"


def test_empty_lines_count_but_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"a": 1}\r\n  \n{"a": 2}')
    assert rows(path) == [Row(2, {"a": 1}), Row(4, {"a": 2})]
    path.write_bytes(b"")
    assert rows(path) == []


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b'{"a": 1}\n{"a": \n', 2, "not valid JSON"),
        (b'{"a": 1}\n[1]\n', 2, "must be a JSON object, not a list"),
        (b"null\n", 1, "not a null"),
        (b'{"a": NaN}\n', 1, "not valid JSON"),
        (b'{"a": 1} {"b": 2}\n', 1, "trailing"),
        (b'\n{"a": "\xff"}\n', 2, "not UTF-8: byte 0xff at offset 7"),
        (b'{"a": "\x00"}\n', 1, "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 1, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", 1, "not valid JSON"),
    ],
)
def test_bad_jsonl_names_its_line(tmp_path: Path, data: bytes, line: int, reason: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(data)
    error = refused(path)
    assert error.line == line
    assert reason in error.reason


def test_rows_before_a_bad_one_are_given(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(JSONL + b"oops\n")
    stream = iter_rows(path)
    assert [next(stream).line, next(stream).line] == [1, 2]
    with pytest.raises(DatasetError, match=r"d\.jsonl:3: not valid JSON"):
        next(stream)


def test_csv_is_text_by_header(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(b'\xef\xbb\xbfid, text\r\n1,"a, ""b""\nc"\r\n\r\n2,\r\n')
    assert rows(path) == [
        Row(2, {"id": "1", "text": 'a, "b"\nc'}),
        Row(5, {"id": "2", "text": ""}),
    ]


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"a,b\n1,2\n3\n", 3, "1 values, but the header names 2"),
        (b'a,b\n"x\ny",2\n1,2,3\n', 4, "3 values"),
        (b"a,b\n1,\x002\n", 2, "NUL byte at offset 2"),
        (b"a,b\n1,\xff\n", 2, "byte 0xff at offset 2"),
        (b'a,b\n1,"open\n', 2, "not valid CSV"),
        (b"a,a\n1,2\n", 1, "'a' more than once"),
        (b"a,,b\n", 1, "column 2 of the header has no name"),
        (b"", 0, "empty"),
    ],
)
def test_bad_csv_names_its_line(tmp_path: Path, data: bytes, line: int, reason: str) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(data)
    error = refused(path)
    assert error.line == line
    assert reason in error.reason


def test_csv_value_may_be_long_but_not_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("a\n" + "x" * 500_000 + "\n")
    assert len(rows(path)[0].value["a"]) == 500_000
    path.write_text('a\n"' + "xxxxxxxxx\n" * 1000)  # a quote that never closes eats lines
    error = refused(path, limits=RowLimits(line_bytes=1000))
    assert "longer than the limit" in error.reason


def test_parquet_streams_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"n": i, "t": "é"} for i in range(3000)]), path)
    found = rows(path)
    assert found[0] == Row(1, {"n": 0, "t": "é"})
    assert found[-1] == Row(3000, {"n": 2999, "t": "é"})
    assert "more than the limit" in refused(path, limits=RowLimits(output_bytes=100)).reason


def test_bad_parquet_is_one_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1 but not really")
    assert "not a readable Parquet file" in refused(path).reason


def test_parquet_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"stanchion\[parquet\]"):
        rows(path)


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.jsonl.gz", "d.zip"])
def test_missing_file_and_folder(tmp_path: Path, name: str) -> None:
    assert "no such file" in refused(tmp_path / name).reason
    (tmp_path / name).mkdir()
    assert "folder" in refused(tmp_path / name).reason


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes(JSONL)
    assert ".jsonl" in str(refused(path))
    assert [row.value for row in rows(path, row_format="jsonl")] == ROWS
    assert "Did you mean 'jsonl'?" in str(refused(path, row_format="json"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("d.jsonl.gz", b"not gzip"),
        ("d.jsonl.gz", gzip.compress(JSONL * 1000)[:-30]),
        ("d.jsonl.gz", b""),
        ("d.jsonl.zst", b"not zstd"),
        ("d.jsonl.zst", zstd.compress(os.urandom(100_000))[:5000]),
        ("d.jsonl.zip", b"PK\x03\x04 not really"),
    ],
)
def test_damaged_archives_are_one_clear_error(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    if data:
        assert "damaged" in refused(path).reason
    else:
        assert rows(path) == []


def test_damaged_zip_member_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "d.jsonl.zip", {"d.jsonl": JSONL}, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b'"id"') + 1] = ord("x")
    path.write_bytes(bytes(data))
    assert "damaged" in refused(path).reason


def test_zip_must_hold_exactly_one_plain_file(tmp_path: Path) -> None:
    two = write_zip(tmp_path / "two.zip", {"a.jsonl": JSONL, "b.jsonl": JSONL})
    assert "holds 2 files ('a.jsonl', 'b.jsonl')" in refused(two).reason
    none = write_zip(tmp_path / "none.zip", {})
    assert "holds 0 files" in refused(none).reason
    inner = write_zip(tmp_path / "inner.zip", {"a.jsonl": JSONL})
    nested = write_zip(tmp_path / "nested.jsonl.zip", {"inner.zip": inner.read_bytes()})
    assert "another packed file" in refused(nested).reason


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "d.jsonl.zip", {"d.jsonl": JSONL})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    path.write_bytes(bytes(data))
    assert "encrypted" in refused(path).reason


def _bomb(name: str) -> bytes:
    line = b'{"a": "' + b"0" * 10_000 + b'"}\n'
    match name:
        case "gz":
            return gzip.compress(line * 2000)
        case "zst":
            return zstd.compress(line * 2000)
        case _:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("d.jsonl", line * 2000)
            return buffer.getvalue()


@pytest.mark.parametrize("kind", ["gz", "zst", "zip"])
def test_bombs_are_refused_by_ratio_and_by_size(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"d.jsonl.{kind}"
    path.write_bytes(_bomb(kind))
    assert len(rows(path)) == 2000  # 20 MB stay within the grace
    by_ratio = refused(path, limits=RowLimits(ratio_grace_bytes=1_000_000))
    assert "like a bomb" in by_ratio.reason
    by_size = refused(path, limits=RowLimits(output_bytes=5_000_000))
    assert "limit of 5,000,000 bytes" in by_size.reason


def test_a_line_beyond_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"a": 1}\n')
        stream.truncate(400_000_000)  # one line of 400 MB of zeros, sparse on disk
    tracemalloc.start()
    try:
        error = refused(path, limits=RowLimits(line_bytes=1_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.line == 2
    assert "limit of 1,000,000 bytes" in error.reason
    assert peak < 5_000_000


def test_the_default_limit_is_16_mib(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    most = 16 * 1024 * 1024
    path.write_bytes(b"x" * most + b"\n" + b"y" * (most + 1) + b"\n")
    stream = iter_lines(path)
    assert len(next(stream)[1]) == most
    with pytest.raises(DatasetError, match=r"d\.jsonl:2: longer than the limit of 16,777,216 bytes"):
        next(stream)


def test_memory_stays_flat_over_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    line = json.dumps({"text": "x" * 2000}) + "\n"
    path.write_text(line * 50_000)
    code = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from stanchion.files.rows import iter_rows
        stream = iter_rows(Path(sys.argv[1]))
        next(stream)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count = 1 + sum(1 for _ in stream)
        print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    count, grown_kib = map(int, done.stdout.split())
    assert count == 50_000
    assert grown_kib < 10_000


def test_lines_come_without_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\n\xffb\rc\nlast")
    assert list(iter_lines(path)) == [(1, b"a"), (2, b""), (3, b"\xffb\rc"), (4, b"last")]


PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | PLAIN_TEXT
JSON_ROWS = st.lists(
    st.dictionaries(PLAIN_TEXT, JSON_SCALARS | st.lists(JSON_SCALARS, max_size=3), max_size=4), max_size=8
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON_ROWS, st.booleans(), st.sampled_from(["", ".gz", ".zst"]))
def test_jsonl_round_trip(tmp_path: Path, values: list[dict[str, Any]], is_ascii: bool, packing: str) -> None:
    path = tmp_path / f"d.jsonl{packing}"
    data = "".join(json.dumps(value, ensure_ascii=is_ascii) + "\n" for value in values).encode()
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}[packing](data))
    assert [(row.line, row.value) for row in iter_rows(path)] == list(enumerate(values, 1))


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=6)))
def test_csv_round_trip(tmp_path: Path, cells: list[list[str]]) -> None:
    path = tmp_path / "d.csv"
    header = [f"c{i}" for i in range(len(cells[0]) if cells else 2)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(cells)
    assert [row.value for row in iter_rows(path)] == [dict(zip(header, row, strict=True)) for row in cells]
