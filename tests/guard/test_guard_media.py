"""Images, sounds and files follow a written rule; what is read is checked, what cannot be read is blocked."""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from guard_fakes import Words, chat, guard, policy, rule
from hypothesis import example, given
from hypothesis import strategies as st

from stanchion.core.errors import FilesError, UsageError
from stanchion.core.interaction import Media, Message, Opaque, Role, Text
from stanchion.core.origin import Origin
from stanchion.guard import media as media_module
from stanchion.guard.fields import UncheckedPart
from stanchion.guard.media import MediaReader, handling_of, media_word
from stanchion.guard.media_rules import KINDS, MediaHandling, MediaRules, kind_of
from stanchion.guard.policy import load_policy
from stanchion.models import anthropic, openai
from stanchion.models.wire import data_url, media_from_url

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
PDF = b"%PDF-1.7 ..."


def embedded(data: bytes, kind: str, *, origin: Origin = Origin.USER, **more: Any) -> Media:
    url = data_url(kind, base64.b64encode(data).decode())
    return media_from_url(url, origin=origin, fallback_type="x/y", **more)


def asked(part: Any) -> Any:
    return chat(Message(role=Role.USER, parts=(Text(text="look", origin=Origin.USER), part)))


class Reader:
    """Reads a PDF by upper-casing what follows its mark."""

    id = "reader"
    version = "1"
    media_types: Sequence[str] = ("application/pdf",)

    def __init__(self, behave: Any = None) -> None:
        self.behave = behave

    def extract(self, data: bytes, media_type: str) -> Any:
        return self.behave(data) if self.behave else data[8:].decode()


def extracting(**kinds: Any) -> MediaRules:
    return MediaRules(**{"file": MediaHandling.EXTRACT, **kinds})


def test_a_text_file_is_read_by_default_and_redacted_in_its_place() -> None:
    made = guard(policy(rule("redact")), Words())
    prepared = made.prepare(asked(embedded(b"mail o@b.c now", "text/plain", name="n.txt")))

    assert prepared.blocked is None
    part = prepared.interaction.messages[0].parts[1]
    assert isinstance(part, Media)
    assert part == embedded(b"mail [EMAIL] now", "text/plain", name="n.txt")
    assert {d.surface.value for d in prepared.decisions} == {"input", "retrieved"}


def test_a_text_file_is_a_document_to_detectors() -> None:
    words = Words()
    guard(policy(rule("redact")), words).prepare(asked(embedded(b"o@b.c", "text/plain")))

    assert [(one.text, one.origin) for one in words.seen] == [
        ("look", Origin.USER),
        ("o@b.c", Origin.RETRIEVED),
    ]


@pytest.mark.parametrize(
    "part",
    [
        embedded(PNG, "image/png"),
        embedded(PDF, "application/pdf"),
        embedded(b"RIFFxxxxWAVE", "audio/wav"),
        embedded(b"x", "x-unknown/y"),
        embedded(b"\xff\xfe\x00", "text/plain"),
        media_from_url("https://x.example/a.txt", origin=Origin.USER, fallback_type="text/plain"),
        media_from_url("data:text/plain,plain", origin=Origin.USER, fallback_type="text/plain"),
        media_from_url("data:text/plain;base64,%%%", origin=Origin.USER, fallback_type="text/plain"),
        embedded(PDF, "text/plain"),  # what the bytes show goes before what is declared
        embedded(b"a" * 100, "text/plain"),
        Media(media_type="text/plain", origin=Origin.USER, digest="d"),
        Media(media_type="", origin=Origin.USER, digest="d"),
    ],
    ids=lambda part: f"{part.media_type} {str(part.location)[:24]}",
)
def test_what_cannot_be_read_is_blocked_by_default(part: Media) -> None:
    made = guard(policy(rule("redact"), media=MediaRules(max_bytes=50)), Words())
    prepared = made.prepare(asked(part))

    assert prepared.blocked is not None
    (decision,) = [d for d in prepared.decisions if d.rule_ids]
    assert decision.rule_ids == ("media",)
    assert decision.reason.startswith("a part of kind media")


@pytest.mark.parametrize("name", ["image", "file"])
def test_what_is_allowed_passes_as_it_is_and_leaves_a_finding(name: str) -> None:
    part = embedded(PNG, "image/png") if name == "image" else embedded(PDF, "application/pdf")
    rules = MediaRules(**{name: MediaHandling.ALLOW})
    request = asked(part)
    prepared = guard(policy(rule("redact"), media=rules), Words()).prepare(request)

    assert prepared.interaction is request
    assert [f.category for f in prepared.decisions[0].findings] == ["input.media"]


def test_what_is_elsewhere_passes_only_where_that_is_written() -> None:
    part = media_from_url("https://x.example/a.png", origin=Origin.USER, fallback_type="image/*")
    for remote in (False, True):
        rules = MediaRules(image=MediaHandling.ALLOW, remote=remote)
        prepared = guard(policy(rule("redact"), media=rules), Words()).prepare(asked(part))
        assert (prepared.blocked is None) is remote


def test_a_file_that_is_called_an_image_follows_the_rule_for_files() -> None:
    rules = MediaRules(image=MediaHandling.ALLOW)
    assert handling_of(rules, embedded(PDF, "image/png")) is MediaHandling.BLOCK
    assert handling_of(rules, embedded(PNG, "image/jpeg")) is MediaHandling.ALLOW


def test_names_and_vendor_fields_of_a_file_are_checked_and_block_where_they_would_be_redacted() -> None:
    made = guard(policy(rule("redact"), media=MediaRules.every(MediaHandling.ALLOW)), Words())
    extra = Opaque(kind="anthropic:document", payload={"context": "ask o@b.c"})
    assert made.prepare(asked(embedded(PDF, "application/pdf", name="o@b.c.pdf"))).blocked is not None
    assert made.prepare(asked(embedded(PDF, "application/pdf", extra=extra))).blocked is not None
    assert made.prepare(asked(embedded(PDF, "application/pdf", name="a.pdf"))).blocked is None


def test_a_plug_in_reads_a_file_and_what_it_reads_is_checked() -> None:
    made = guard(policy(rule("block"), media=extracting()), Words(), extractors=[Reader()])

    assert made.prepare(asked(embedded(b"%PDF-1.7harmless", "application/pdf"))).blocked is None
    assert made.prepare(asked(embedded(b"%PDF-1.7o@b.c", "application/pdf"))).blocked is not None


def test_what_a_plug_in_read_cannot_be_rewritten_so_it_blocks() -> None:
    made = guard(policy(rule("redact"), media=extracting()), Words(), extractors=[Reader()])

    assert made.prepare(asked(embedded(b"%PDF-1.7o@b.c", "application/pdf"))).blocked is not None


def boom(_: bytes) -> str:
    raise ValueError("words of the document")


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (boom, "extractor 'reader': raised ValueError"),
        (lambda _: b"bytes", "gave bytes, not a text"),
        (lambda _: None, "gave NoneType, not a text"),
        (lambda data: PlainTextFault(data), "it has no pages."),
    ],
)
def test_a_plug_in_that_fails_blocks_and_its_words_stay_out(behave: Any, says: str) -> None:
    made = guard(policy(rule("block"), media=extracting()), Words(), extractors=[Reader(behave)])
    prepared = made.prepare(asked(embedded(PDF, "application/pdf")))

    assert prepared.blocked is not None
    (decision,) = [d for d in prepared.decisions if d.rule_ids]
    assert says in decision.reason
    assert "words of the document" not in decision.reason


def PlainTextFault(_: bytes) -> str:
    raise UsageError("it has no pages.")


def test_a_plug_in_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_module, "EXTRACT_DEADLINE_S", 0.05)
    release = threading.Event()
    made = guard(
        policy(rule("block"), media=extracting()), Words(), extractors=[Reader(lambda _: release.wait(30))]
    )
    prepared = made.prepare(asked(embedded(PDF, "application/pdf")))
    release.set()

    assert prepared.blocked is not None
    assert "gave no answer within" in next(d.reason for d in prepared.decisions if d.rule_ids)


def test_requests_of_both_apis_with_files_meet_the_rule() -> None:
    made = guard(policy(rule("redact")), Words())
    pdf, text = base64.b64encode(PDF).decode(), base64.b64encode(b"mail o@b.c").decode()

    def of_openai(part: dict[str, Any]) -> Any:
        body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
        return made.prepare(openai.decode_request(body).interaction)

    def of_anthropic(block: dict[str, Any]) -> Any:
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
        return made.prepare(anthropic.decode_request(body).interaction)

    assert of_openai({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf}"}}).blocked
    assert of_openai({"type": "file", "file": {"file_id": "f"}}).blocked
    assert of_openai({"type": "input_audio", "input_audio": {"data": pdf, "format": "wav"}}).blocked
    assert of_openai({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}).blocked
    read = of_openai({"type": "file", "file": {"file_data": f"data:text/plain;base64,{text}"}})
    sent = openai.encode_request(read.interaction)["messages"][0]["content"][0]["file"]["file_data"]
    assert base64.b64decode(sent.partition(",")[2]) == b"mail [EMAIL]"

    source = {"type": "base64", "media_type": "application/pdf", "data": pdf}
    assert of_anthropic({"type": "document", "source": source}).blocked
    assert of_anthropic({"type": "document", "source": {"type": "file", "file_id": "f"}}).blocked
    assert of_anthropic({"type": "search_result", "source": "s", "title": "t", "content": []}).blocked
    plain = {"type": "text", "media_type": "text/plain", "data": "mail o@b.c"}
    read = of_anthropic({"type": "document", "source": plain})
    block = anthropic.encode_request(read.interaction)["messages"][0]["content"][0]
    assert block["source"]["data"] == "mail [EMAIL]"
    assert read.interaction.documents[0].text == "mail [EMAIL]"


@given(st.text(max_size=12), st.binary(max_size=30), st.booleans(), st.sampled_from(list(MediaHandling)))
@example("a,b", b"", True, MediaHandling.ALLOW)
@example("", b"", True, MediaHandling.ALLOW)
def test_no_part_passes_unread_unless_allow_is_written(
    media_type: str, data: bytes, is_embedded: bool, handling: MediaHandling
) -> None:
    """Whatever the type says and the bytes are: it is allowed by a rule, read, or stopped."""
    from stanchion.guard.workers import SyncDoor, run

    part = embedded(data, media_type) if is_embedded else embedded(data, "image/png")
    rules = MediaRules(**dict.fromkeys(KINDS, handling))
    field = UncheckedPart(field="f", surface=guard_surface(), origin=Origin.USER, kind="media", media=part)
    (read,) = run(MediaReader(rules).read(SyncDoor(), [field]))
    if isinstance(read, UncheckedPart):
        # A comma ends the head of a data URL, so a type with one leaves data that is not base64: refused.
        is_damaged = is_embedded and "," in media_type
        assert media_word(rules, read)[0] is (handling is MediaHandling.ALLOW and not is_damaged)
    else:
        assert handling is MediaHandling.EXTRACT
        assert read.text == data.decode("utf-8-sig")


def guard_surface() -> Any:
    from stanchion.core.decision import Surface

    return Surface.INPUT


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("IMAGE/png", "image"), ("text/csv", "text"), ("file/x", "file"), ("", "file"), ("font/otf", "file")],
)
def test_kinds_of_media_types(media_type: str, kind: str) -> None:
    assert kind_of(media_type) == kind


def test_the_policy_file_says_it_in_one_word_or_by_kind(tmp_path: Path) -> None:
    waiver = "{id: W, covers: media, reason: r, approved_by: p, expires: '2099-01-01'}"
    head = f"version: 1\nextends: [default]\nwaivers: [{waiver}]\n"
    path = tmp_path / "policy.yaml"
    path.write_text(head + "media: {image: allow}\n", encoding="utf-8")
    assert load_policy(path).media == MediaRules(image=MediaHandling.ALLOW)
    path.write_text(head + "media: allow\n", encoding="utf-8")
    assert load_policy(path).media == MediaRules.every(MediaHandling.ALLOW)
    path.write_text("version: 1\nextends: [default]\nmedia: block\n", encoding="utf-8")
    assert load_policy(path).media == MediaRules.every(MediaHandling.BLOCK)
    path.write_text("version: 1\nextends: [default]\nmedia: {picture: allow}\n", encoding="utf-8")
    with pytest.raises(FilesError, match="picture"):
        load_policy(path)
    path.write_text("version: 1\nextends: [default]\nmedia: perhaps\n", encoding="utf-8")
    with pytest.raises(FilesError, match=r"policy\.yaml:3"):
        load_policy(path)
