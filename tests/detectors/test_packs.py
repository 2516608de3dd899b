"""Content packs: only what a pinned key signed gets in, it runs in shadow first, and a rollback goes back."""

from __future__ import annotations

import asyncio
import io
import stat
import threading
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanchion.core.codec import canonical_json, digest_bytes
from stanchion.core.decision import Mode
from stanchion.core.errors import FilesError, IntegrityError, StanchionError, UnknownNameError, UsageError
from stanchion.core.interaction import End, FinishReason, Interaction, TextDelta, user
from stanchion.core.signatures import key_id, new_key, sign
from stanchion.detectors.pack_file import (
    ENVELOPE,
    PAYLOAD_TYPE,
    ContentKind,
    PackedFile,
    PackManifest,
    build_pack,
    open_pack,
)
from stanchion.detectors.packs import PackStore, read_pack
from stanchion.detectors.registry import Registry
from stanchion.files.archive import ArchiveLimits, read_archive, write_archive
from stanchion.guard.bulk import BulkScanner, bulk_policy
from stanchion.guard.live_guard import LiveGuard
from stanchion.guard.pipeline import Guard

KEY = new_key()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}
PATTERNS = """catalogue: acme
version: 1
patterns:
- {{id: pack.acme_token, pattern: 'ACME-{digits}', category: secret.token, score: 0.9, examples: [{example}]}}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def folder(
    tmp_path: Path, version: str = "1.0", *, digits: str = "[0-9]{6}", example: str = "ACME-123456"
) -> Path:
    made = tmp_path / f"source-{version}"
    made.mkdir(exist_ok=True)
    (made / "pack.yaml").write_text(
        f'pack: acme\nversion: "{version}"\ntitle: Tokens\npatterns: [p.yaml]\ncorpora: [more/rows.jsonl]\n'
    )
    (made / "p.yaml").write_text(PATTERNS.format(digits=digits, example=example))
    (made / "more").mkdir(exist_ok=True)
    (made / "more/rows.jsonl").write_text('{"text": "a"}\n')
    return made


def packed(tmp_path: Path, version: str = "1.0", **options: str) -> bytes:
    return build_pack(folder(tmp_path, version, **options), KEY)[1]


def store(tmp_path: Path, cache: Path, keys: Any = None) -> PackStore:
    return PackStore(tmp_path / "packs", KEYS if keys is None else keys, cache_dir=cache)


# --- the file -----------------------------------------------------------------------------------------------


def test_a_pack_is_built_the_same_from_the_same_files(tmp_path: Path) -> None:
    manifest, data = build_pack(folder(tmp_path), KEY)
    assert build_pack(folder(tmp_path), KEY) == (manifest, data)
    opened = open_pack(data, KEYS, name="p")
    assert opened.manifest == manifest
    assert set(opened.files) == {"p.yaml", "more/rows.jsonl"}


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ('pack: acme\nversion: "1"\n', "is empty"),
        ('pack: acme\nversion: "1"\npatterns: [../p.yaml]\n', "cannot be packed"),
        ('pack: acme\nversion: "1"\npatterns: [/etc/passwd]\n', "cannot be packed"),
        ('pack: acme\nversion: "1"\npatterns: [link.yaml]\n', "cannot be packed"),
        ('pack: acme\nversion: "1"\npatterns: [none.yaml]\n', "cannot be read"),
        ('pack: acme\nversion: "1"\npatterns: [p.yaml]\ncorpora: [p.yaml]\n', "listed twice"),
        ('pack: A b\nversion: "1"\npatterns: [p.yaml]\n', "pack.yaml:1"),
        ('pack: acme\nversion: "01"\npatterns: [p.yaml]\n', "pack.yaml:2"),
        ('pack: acme\nversion: "1"\npattern: [p.yaml]\n', "pattern"),
    ],
)
def test_a_description_that_is_wrong_says_why(tmp_path: Path, description: str, says: str) -> None:
    made = folder(tmp_path)
    (made / "link.yaml").symlink_to(made / "p.yaml")
    (made / "pack.yaml").write_text(description)
    with pytest.raises(UsageError, match=says):
        build_pack(made, KEY)


@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_bit_is_noticed_or_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    manifest, whole = build_pack(folder(tmp_path), KEY)
    wire = bytearray(whole)
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        opened = open_pack(bytes(wire), KEYS, name="p")
    except IntegrityError:
        return
    assert opened.manifest == manifest  # a date or another field that nobody reads
    assert opened.files == open_pack(whole, KEYS, name="p").files


def repacked(data: bytes, **changes: bytes | None) -> bytes:
    files: dict[str, bytes] = {**read_archive(data, name="p")}
    for name, content in changes.items():
        if content is None:
            del files[name]
        else:
            files[name] = content
    return write_archive(files)


def test_files_that_were_changed_added_or_taken_are_refused(tmp_path: Path) -> None:
    data = packed(tmp_path)
    for change, says in (
        ({"p.yaml": b"x"}, "is not what was signed"),
        ({"extra": b"x"}, "'extra' is not signed"),
        ({"p.yaml": None}, "'p.yaml' is missing"),
        ({ENVELOPE: None}, "nothing says who made it"),
        ({ENVELOPE: b"{}"}, "no signed envelope"),
    ):
        with pytest.raises(IntegrityError, match=says):
            open_pack(repacked(data, **change), KEYS, name="p")
    with pytest.raises(IntegrityError, match="none of these keys"):
        open_pack(data, {}, name="p")
    other = new_key().public_key()
    with pytest.raises(IntegrityError, match="none of these keys"):
        open_pack(data, {key_id(other): other}, name="p")
    # the id of a trusted key on another key's signature
    forged = build_pack(folder(tmp_path), new_key())[1]
    envelope = msgspec.json.decode(read_archive(forged, name="p")[ENVELOPE])
    envelope["signatures"][0]["keyid"] = next(iter(KEYS))
    with pytest.raises(IntegrityError, match="does not match"):
        open_pack(repacked(forged, **{ENVELOPE: msgspec.json.encode(envelope)}), KEYS, name="p")
    envelope = sign(b"{}", payload_type="application/vnd.stanchion.index+json", key=KEY)
    with pytest.raises(IntegrityError, match="the envelope holds"):
        open_pack(repacked(data, **{ENVELOPE: msgspec.json.encode(envelope)}), KEYS, name="p")


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "a/../../x", "a\\b", "C:x", "./a", "a//b", ".hidden", "", "a\nb", "x" * 300, "a/.."],
)
def test_a_signed_manifest_cannot_lead_outside_either(name: str) -> None:
    file = PackedFile(path=name, kind=ContentKind.CORPUS, digest=digest_bytes(b"x"), size=1)
    manifest = PackManifest(name="a", version="1", title="", source="", files=(file,))
    envelope = sign(canonical_json(manifest), payload_type=PAYLOAD_TYPE, key=KEY)
    with pytest.raises(IntegrityError):
        open_pack(write_archive({ENVELOPE: msgspec.json.encode(envelope)}), KEYS, name="p")


@pytest.mark.parametrize("change", [{"name": "../a"}, {"name": "A"}, {"version": "1/2"}, {"version": ".."}])
def test_a_signed_name_or_version_cannot_lead_outside_either(change: dict[str, str]) -> None:
    manifest = PackManifest(**{"name": "a", "version": "1", "title": "", "source": "", "files": (), **change})
    envelope = sign(canonical_json(manifest), payload_type=PAYLOAD_TYPE, key=KEY)
    with pytest.raises(IntegrityError, match="cannot be used"):
        open_pack(write_archive({ENVELOPE: msgspec.json.encode(envelope)}), KEYS, name="p")


# --- archives -----------------------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, lie: int | None = None) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    data = made.getvalue()
    if lie is not None:
        real = len(members[0][1]).to_bytes(4, "little")
        data = data.replace(real, lie.to_bytes(4, "little"))
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no sound zip"),
        (b"PK\x03\x04 nothing", "no sound zip"),
        (zipped(("../a", b"x")), "leads outside"),
        (zipped(("/a", b"x")), "leads outside"),
        (zipped(("a\\..\\b", b"x")), "leads outside"),
        (zipped(("a/", b"")), "refused"),
        (zipped(("a", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), "a link"),
        (zipped(("a", b"x"), mode=stat.S_IFIFO | 0o644), "a special file"),
        (zipped(("a", b"x"), ("A", b"y")), "used twice"),
        (zipped(("a1", b"x"), ("a2", b"y")).replace(b"a2", b"a1"), "used twice"),
        (zipped(*((f"f{n}", b"") for n in range(12))), "more than 10 files"),
        (zipped(("a", b"\0" * 20_000)), "unpacks to more than"),
        (zipped(("a", b"\0" * 9_000)), "unpacks to too much"),
        (zipped(("a", b"x" * 9_000), lie=10), "sound zip|too much"),
        (b"x" * 200_000, "larger than"),
    ],
)
def test_an_archive_cannot_lead_outside_or_grow(data: bytes, says: str) -> None:
    limits = ArchiveLimits(
        packed_bytes=100_000, unpacked_bytes=10_000, files=10, ratio=100, ratio_grace_bytes=1_000
    )
    with pytest.raises(IntegrityError, match=says):
        read_archive(data, name="p", limits=limits)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=60), max_size=5
    )
)
def test_what_was_packed_comes_back(files: dict[str, bytes]) -> None:
    assert read_archive(write_archive(files), name="p") == files


@given(st.binary(max_size=200))
def test_bytes_that_are_no_archive_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_archive(data, name="p")


# --- the store ----------------------------------------------------------------------------------------------


def test_a_version_is_shadowed_then_enabled_then_rolled_back(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)
    first = packs.install(packed(tmp_path), name="p")
    assert (first.shadowed, first.enabled) == ("1.0", "")
    assert [(one.id, one.shadowed) for one in packs.active()] == [("pack.acme.next", True)]
    with pytest.raises(UsageError, match="not enabled"):
        packs.files("acme", ContentKind.CORPUS)
    assert packs.enable("acme").enabled == "1.0"
    with pytest.raises(UsageError, match="no version in shadow"):
        packs.enable("acme")

    packs.install(packed(tmp_path, "1.1", digits="[0-9]{7}", example="ACME-1234567"), name="p")
    assert [(one.id, one.version) for one in packs.active()] == [
        ("pack.acme", "1.0"),
        ("pack.acme.next", "1.1"),
    ]
    assert packs.rollback("acme").shadowed == ""
    again = packs.install(packed(tmp_path, "1.1", digits="[0-9]{7}", example="ACME-1234567"), name="p")
    assert again.shadowed == ""  # the same again changes nothing, a rollback included

    packs.install(packed(tmp_path, "1.2"), name="p")
    assert packs.enable("acme").former == ("1.0",)
    assert [path.read_text() for path in packs.files("acme", ContentKind.CORPUS)] == ['{"text": "a"}\n']
    assert packs.rollback("acme").enabled == "1.0"
    assert packs.rollback("acme").enabled == ""
    with pytest.raises(UsageError, match="nothing to go back to"):
        packs.rollback("acme")
    with pytest.raises(UnknownNameError):
        packs.rollback("nobody")


def test_an_older_version_or_another_content_of_the_same_one_is_refused(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)
    packs.install(packed(tmp_path, "1.10"), name="p")
    for version in ("1.9", "1.2.9", "0.99"):
        with pytest.raises(IntegrityError, match=r"is older than 1\.10"):
            packs.install(packed(tmp_path, version), name="p")
    packs.rollback("acme")
    with pytest.raises(IntegrityError, match="is older"):  # going back does not open the door
        packs.install(packed(tmp_path, "1.9"), name="p")
    with pytest.raises(IntegrityError, match="another acme"):
        packs.install(packed(tmp_path, "1.10", digits="[0-9]+"), name="p")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (PATTERNS.format(digits="(", example="a"), FilesError),
        (PATTERNS.format(digits="[0-9]{6}", example="nothing of it"), UsageError),
        (PATTERNS.format(digits="[0-9]{6}", example="ACME-123456").replace("pack.", "secrets."), FilesError),
        ("no catalogue", FilesError),
    ],
)
def test_patterns_that_are_not_in_order_are_not_installed(
    tmp_path: Path, cache: Path, content: str, error: type[StanchionError]
) -> None:
    made = folder(tmp_path)
    (made / "p.yaml").write_text(content)
    packs = store(tmp_path, cache)
    with pytest.raises(error):
        packs.install(build_pack(made, KEY)[1], name="p")
    assert packs.installed() == ()
    assert not list((tmp_path / "packs").rglob("*.yaml"))


@pytest.mark.parametrize("what", ["change", "add", "remove", "link", "envelope", "swap", "state"])
def test_an_installed_pack_that_was_tampered_with_is_not_used(tmp_path: Path, cache: Path, what: str) -> None:
    packs = store(tmp_path, cache)
    packs.install(packed(tmp_path), name="p")
    packs.enable("acme")
    place = tmp_path / "packs/acme/1.0"
    match what:
        case "change":
            (place / "p.yaml").write_text(PATTERNS.format(digits="never", example="ACME-never"))
        case "add":
            (place / "q.yaml").write_text("x")
        case "remove":
            (place / "more/rows.jsonl").unlink()
        case "link":
            (place / "p.yaml").unlink()
            (place / "p.yaml").symlink_to("/etc/passwd")
        case "envelope":
            (place / ENVELOPE).write_text("{}")
        case "swap":
            store(tmp_path / "b", cache).install(packed(tmp_path, "0.9"), name="p")
            (tmp_path / "b/packs/acme/0.9" / ENVELOPE).rename(place / ENVELOPE)
        case _:
            (tmp_path / "packs/state.json").write_text("[{}]")
    with pytest.raises(IntegrityError):
        Guard.load("default", registry=Registry(packs=packs))


def test_a_key_that_is_no_longer_pinned_ends_a_pack(tmp_path: Path, cache: Path) -> None:
    store(tmp_path, cache).install(packed(tmp_path), name="p")
    with pytest.raises(IntegrityError):
        store(tmp_path, cache, keys={}).active()


def test_a_pack_without_detectors_is_ready_at_once(tmp_path: Path, cache: Path) -> None:
    made = folder(tmp_path)
    (made / "pack.yaml").write_text('pack: rows\nversion: "1"\ncorpora: [more/rows.jsonl]\n')
    packs = store(tmp_path, cache)
    assert packs.install(build_pack(made, KEY)[1], name="p").enabled == "1"
    assert packs.active() == ()
    assert len(packs.files("rows", ContentKind.CORPUS)) == 1


def test_a_file_that_is_no_pack_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_pack(tmp_path / "none")


# --- under guard --------------------------------------------------------------------------------------------

TEXT = "Use ACME-123456 here."


def test_a_shadowed_pack_records_and_an_enabled_one_decides(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)
    packs.install(packed(tmp_path), name="p")
    registry = Registry(packs=packs)
    assert "pack.acme.next" in registry.ids()
    shadowing = Guard.load("default", registry=registry)
    assert shadowing.policy is not None
    assert shadowing.policy.detectors["pack.acme.next"].mode is Mode.SHADOW
    seen = shadowing.check(TEXT)
    assert seen.text == TEXT
    assert seen.decision.effect.value == "allow"
    assert seen.decision.shadow_effect.value == "redact"
    assert [one.detector for one in seen.decision.findings] == ["pack.acme.next"]

    packs.enable("acme")
    deciding = Guard.load("default", registry=Registry(packs=packs))
    assert deciding.check(TEXT).text == "Use [TOKEN] here."
    assert deciding.components.policy != shadowing.components.policy
    assert deciding.components.detectors != shadowing.components.detectors


def test_a_shadowed_detector_that_fails_stops_nothing(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)
    packs.install(packed(tmp_path), name="p")
    made = Guard.load("default", registry=Registry(packs=packs))

    def broken(_: Any) -> Any:
        raise ValueError

    (check,) = [one for one in made.checks("input") if one.id == "pack.acme.next"]
    check.detector.detect = broken
    decision = made.check(TEXT).decision
    assert decision.effect.value == "allow"
    assert [r.status.value for r in decision.checks if r.detector == "pack.acme.next"] == ["errored"]


def test_a_running_guard_is_swapped_whole(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)

    def make(before: Guard | None) -> Guard:
        return Guard.load("default", registry=Registry(packs=packs), successor_of=before)

    live = LiveGuard(make, stamp=lambda: packs.stamp)
    first = live.current
    assert not live.refresh()
    packs.install(packed(tmp_path), name="p")
    packs.enable("acme")
    results: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            results.append(live.current.check(TEXT).text)

    thread = threading.Thread(target=ask)
    thread.start()
    assert live.refresh()
    stop.set()
    thread.join()
    assert set(results) <= {TEXT, "Use [TOKEN] here."}
    assert live.current is not first
    assert live.current.vaults is first.vaults
    assert live.current.check(TEXT).text == "Use [TOKEN] here."
    assert first.check(TEXT).text == TEXT  # a request that began before keeps what it began with

    (tmp_path / "packs/acme/1.0/p.yaml").write_text("x")
    kept = live.current
    with pytest.raises(IntegrityError):
        live.reload()
    assert live.current is kept
    packs.rollback("acme")
    assert live.refresh()
    assert live.current.check(TEXT).text == TEXT


def test_a_policy_may_set_a_pack_but_not_take_it_out_of_shadow(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)
    packs.install(packed(tmp_path), name="p")
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nextends: [default]\ndetectors: {pack.acme.next: {threshold: 0.3, mode: enforce}}\n"
    )
    made = Guard.load(path, registry=Registry(packs=packs))
    assert made.policy is not None
    assert made.policy.detectors["pack.acme.next"].threshold == 0.3
    assert made.policy.detectors["pack.acme.next"].mode is Mode.SHADOW
    with pytest.raises(FilesError, match="unknown detector"):
        Guard.load(path, registry=Registry())


def test_a_pack_is_asked_in_bulk_and_on_a_stream_as_well(tmp_path: Path, cache: Path) -> None:
    packs = store(tmp_path, cache)
    packs.install(packed(tmp_path), name="p")
    packs.enable("acme")
    registry = Registry(packs=packs)
    scanner = BulkScanner(bulk_policy("default", registry), registry)
    assert [one.effect.value for one in scanner.judge_many([TEXT, "Nothing here."])] == ["redact", "allow"]

    made = Guard.load("default", registry=registry)

    async def streamed() -> str:
        stream = made.stream(made.prepare(Interaction(messages=(user("hi"),))))
        events = [*(TextDelta(text=letter) for letter in TEXT), End(finish_reason=FinishReason.STOP)]
        out = [given for event in events for given in await stream.feed(event)]
        return "".join(one.text for one in out if isinstance(one, TextDelta))

    assert asyncio.run(streamed()) == "Use [TOKEN] here."
