"""Bad files on the command line: one clear message, with its place, the right exit code, nothing lost."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest
from stanchion_command import Done, Place, assert_one_complaint

GOOD = """
suite: words
target: {kind: callable, function: 'app.py:fine'}
scorers: [{use: excludes}]
cases: [{prompt: Hello, expect: {excludes: forbidden}}]
"""
ON_ROWS = """
suite: words
target: {kind: callable, function: 'app.py:fine'}
scorers: [{use: excludes}]
datasets: [{path: %s}]
criteria: [{metric: unsafe_rate, limit: 50%%}]
"""
ROW = json.dumps({"prompt": "Hello", "expect.excludes": ["forbidden"]}).encode() + b"\n"
LIMIT = 16 * 1024 * 1024


@pytest.fixture
def shop(place: Place) -> Place:
    place.write("app.py", "def fine(text):\n    return 'How can I help?'\n")
    return place


def judge(shop: Place, suite: str | bytes) -> Done:
    shop.write("suite.yaml", suite)
    return shop.call("eval", "run", "suite.yaml")


SUITES = {
    "broken YAML": (
        "suite: words\ncases: [{prompt: Hello}\ntarget: x\n",
        ["suite.yaml:3:", "not valid YAML", "expected"],
    ),
    "unknown key": (
        GOOD.replace("scorers", "scorres"),
        ["suite.yaml:4:1: unknown key 'scorres'. Did you mean 'scorers'?"],
    ),
    "unknown key of a case": (
        GOOD.replace("prompt", "promt"),
        ["suite.yaml:5:10: unknown key 'promt' in cases[0]. Did you mean 'prompt'?"],
    ),
    "wrong type": (
        GOOD + "repeats: many\n",
        ["suite.yaml:6:10: repeats: expected a whole number, got text 'many'."],
    ),
    "unknown kind": (
        GOOD.replace("callable", "calable"),
        ["suite.yaml:3:", "calable", "callable"],
    ),
    "missing reference": (
        GOOD + "system: ${file:prompt.md}\n",
        ["suite.yaml:6:9", "'prompt.md'", "there is no such file", "Paths start at"],
    ),
    "missing dataset": (
        ON_ROWS % "rows.jsonl",
        ["suite.yaml:5:19", "rows.jsonl", "there is no such file", "Paths start at the suite."],
    ),
    "missing variable": (
        GOOD + "system: ${env:NOT_SET_ANYWHERE}\n",
        ["suite.yaml:6:9", "NOT_SET_ANYWHERE", "not set"],
    ),
    "invalid UTF-8": (
        b"suite: w\xff\xfe\n",
        ["suite.yaml:1:9: not UTF-8: byte 0xff", "Save the file as UTF-8."],
    ),
}


@pytest.mark.parametrize("name", SUITES)
def test_a_broken_suite_is_one_problem_with_its_place(shop: Place, name: str) -> None:
    suite, words = SUITES[name]
    done = judge(shop, suite)
    assert_one_complaint(done, code=2, words=[*words, "error: 1 problem found"])
    assert done.out == ""
    assert len(done.err.splitlines()) == 2
    assert shop.run_ids() == []


def test_every_problem_of_a_suite_comes_at_once(shop: Place) -> None:
    done = judge(shop, GOOD.replace("prompt", "promt").replace("scorers", "scorres") + "repeats: many\n")
    assert_one_complaint(done, code=2, words=[":4:1: ", ":5:10: ", ":6:10: ", "error: 3 problems found"])


def test_a_missing_suite_is_told(shop: Place) -> None:
    done = shop.call("eval", "run", "nowhere.yaml")
    assert_one_complaint(done, code=2, words=["nowhere.yaml: there is no such file"])


@pytest.mark.parametrize("how", ["include", "reference"])
def test_a_cycle_is_printed_whole(shop: Place, how: str) -> None:
    if how == "include":
        shop.write("a.yaml", "include: [b.yaml]\n")
        shop.write("b.yaml", "include: [a.yaml]\n")
        done = judge(shop, "suite: words\ninclude: [a.yaml]\n")
    else:
        shop.write("a.yaml", "- ${file:b.yaml}\n")
        shop.write("b.yaml", "- ${file:a.yaml}\n")
        done = judge(shop, "suite: words\nsystem: x\ncases: ${file:a.yaml}\n")
    assert_one_complaint(
        done, code=2, words=["b.yaml:1:", "a.yaml -> b.yaml -> a.yaml", "Remove one of them."]
    )


def bomb(path: Path) -> None:
    """A small file that unpacks to 300 MB of rows that are fine one by one."""
    row = b'{"prompt": "' + b"a" * 1_000_000 + b'"}\n'
    if path.suffix == ".zip":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("rows.jsonl", "w") as member,
        ):
            for _ in range(300):
                member.write(row)
    else:
        with gzip.open(path, "wb", compresslevel=9) as packed:
            for _ in range(300):
                packed.write(row)


@pytest.mark.parametrize("name", ["rows.zip", "rows.jsonl.gz"])
def test_a_bomb_is_put_out(shop: Place, name: str) -> None:
    bomb(shop.folder / name)
    done = judge(shop, ON_ROWS % name)
    words = [name, "unpacks to more than 200 times its size", "Unpack it yourself if it is to be trusted."]
    assert_one_complaint(done, code=2, words=words)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            ROW * 2 + b'{"prompt": "\xff\xfe"}\n',
            ["rows.jsonl:3: not UTF-8: byte 0xff", "Save the file as UTF-8."],
        ),
        (ROW + b"{broken\n", ["rows.jsonl:2: not valid JSON", "One JSON object a line."]),
        (ROW + b"[1]\n", ["rows.jsonl:2: a row must be a JSON object, not a list."]),
        (ROW + b'{"promt": "x"}\n', ["rows.jsonl:2: column 'promt' is no field of a case.", "'prompt'?"]),
        (ROW + b'{"prompt": ["x"]}\n', ["rows.jsonl:2: prompt: "]),
        (ROW + b'{"prompt": "x", "expect.label": "maybe"}\n', ["rows.jsonl:2: expect.label: ", "'unsafe'"]),
    ],
    ids=["invalid UTF-8", "broken JSON", "a list", "unknown column", "wrong type", "unknown label"],
)
def test_a_bad_row_is_told_before_anything_is_asked(shop: Place, rows: bytes, words: list[str]) -> None:
    shop.write("rows.jsonl", rows)
    done = judge(shop, ON_ROWS % "rows.jsonl")
    assert_one_complaint(done, code=2, words=words)
    assert shop.run_ids() == []


def test_a_packed_row_of_bad_bytes_names_its_line(shop: Place) -> None:
    shop.write("rows.jsonl.gz", gzip.compress(ROW * 2 + b'{"prompt": "\xff"}\n'))
    done = judge(shop, ON_ROWS % "rows.jsonl.gz")
    assert_one_complaint(done, code=2, words=["rows.jsonl.gz:3: not UTF-8"])


def test_a_line_over_the_limit_names_its_place(shop: Place) -> None:
    shop.write("rows.jsonl", ROW + b'{"prompt": "' + b"x" * LIMIT + b'"}\n')
    done = judge(shop, ON_ROWS % "rows.jsonl")
    assert_one_complaint(
        done, code=2, words=["rows.jsonl:2: longer than the limit of 16,777,216 bytes.", "Split"]
    )


def test_a_bad_row_far_down_keeps_what_was_judged_before_and_never_passes(shop: Place) -> None:
    """A dataset too large to be walked beforehand breaks in the middle of the run."""
    rows = [json.dumps({"prompt": f"{n} " + "word " * 400, "expect.excludes": ["x"]}) for n in range(2400)]
    shop.write("rows.jsonl", "\n".join([*rows[:2000], "{broken", *rows[2000:]]))
    done = judge(shop, ON_ROWS % "rows.jsonl")
    assert_one_complaint(
        done, code=2, words=["rows.jsonl:2001: not valid JSON", "What was judged before is kept."]
    )
    (run_id,) = shop.run_ids()
    assert run_id in done.err
    shown = shop.call("eval", "show", run_id, "--verify", "--format", "json")
    assert shown.code == 0
    assert 1900 < shown.data["arms"][0]["summary"]["counts"]["safe"] <= 2000
    judged = shop.call("gate", run_id, "--format", "json")
    assert (judged.code, judged.data["outcome"]) == (3, "invalid")
    (criterion,) = judged.data["verdicts"][0]["criteria"]
    assert "cut short" in criterion["reason"]


def test_a_suite_without_cases_is_no_success(shop: Place) -> None:
    shop.write("rows.jsonl", "")
    done = judge(shop, ON_ROWS % "rows.jsonl")
    assert_one_complaint(done, code=3, words=["nothing was asked: the suite has no cases."])


BROKEN_SAFETY = {
    "broken YAML": (b"case: [\n", ["case.yaml:", "not valid YAML"]),
    "unknown key": (b"ownr: somebody\n", ["case.yaml:1:1: unknown key 'ownr'. Did you mean 'owner'?"]),
    "invalid UTF-8": (b"owner: \xff\n", ["case.yaml:1:", "not UTF-8"]),
}


@pytest.mark.parametrize("name", BROKEN_SAFETY)
def test_check_finds_what_is_broken_in_a_folder_that_init_wrote(shop: Place, name: str) -> None:
    assert shop.call("init").code == 0
    assert shop.call("check").code == 0
    broken, words = BROKEN_SAFETY[name]
    (path,) = shop.folder.glob("safety/features/*/case.yaml")
    path.write_bytes(broken)
    done = shop.call("check")
    assert done.code == 1
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.out


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("rules: [\n", ["policy.yaml:", "not valid YAML"]),
        ("version: 1\nruls: []\n", ["unknown key 'ruls'. Did you mean 'rules'?"]),
        ("version: 1\nextends: [policy.yaml]\n", ["policy.yaml"]),
    ],
    ids=["broken YAML", "unknown key", "extends itself"],
)
def test_a_broken_policy_is_told_by_every_command_that_reads_one(
    shop: Place, policy: str, words: list[str]
) -> None:
    shop.write("policy.yaml", policy)
    shop.write("rows.jsonl", b'{"text": "hello"}\n')
    for command in (["policy", "show", "policy.yaml"], ["scan", "rows.jsonl", "--policy", "policy.yaml"]):
        done = shop.call(*command)
        assert done.code == 2, done
        assert "Traceback" not in done.err
        for word in words:
            assert word in done.err


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b"{broken", "not a row of JSON"),
        (b'{"txt": "x"}', "the field 'text' is missing"),
        (b'{"text": 3}', "the field 'text' is not text but int"),
    ],
    ids=["invalid UTF-8", "broken JSON", "no text", "a number"],
)
def test_scan_gives_a_bad_row_a_record_and_goes_on(shop: Place, bad: bytes, words: str) -> None:
    good = b'{"text": "What is your return policy?"}'
    shop.write("rows.jsonl", b"\n".join([good, bad, good]))
    done = shop.call("scan", "rows.jsonl", "--format", "jsonl")
    assert done.code == 2
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["decision"] for record in records] == ["allow", "error", "allow"]
    assert words in records[1]["error"]
    assert records[1]["line"] == 2


@pytest.mark.parametrize("name", ["rows.zip", "rows.jsonl.gz", "rows.jsonl"])
def test_scan_stops_at_what_it_cannot_read_on(shop: Place, name: str) -> None:
    if name == "rows.jsonl":
        shop.write(name, b'{"text": "' + b"x" * LIMIT + b'"}\n')
        words = "rows.jsonl:1: longer than the limit of 16,777,216 bytes."
    else:
        bomb(shop.folder / name)
        words = f"{name}: unpacks to more than 200 times its size"
    done = shop.call("scan", name, "--rows", "jsonl", "--field", "nothing", "--quiet")
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_settings_with_an_unknown_key_stop_every_command(shop: Place) -> None:
    shop.write("stanchion.yaml", "polcy: strict\n")
    done = shop.call("eval", "run", str(shop.write("suite.yaml", GOOD)))
    assert_one_complaint(
        done, code=2, words=["stanchion.yaml:1:1: unknown key 'polcy'. Did you mean 'policy'?"]
    )
