"""Personal data: forms, checks, words around numbers, exact spans, and what is none of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import ask, detector, read, registry, span

from stanchion.core.taxonomy import taxonomy
from stanchion.detectors.context_words import kinds_near
from stanchion.detectors.phones import score as phone_score
from stanchion.detectors.pii import create

DATA = Path(__file__).parents[3] / "shared" / "data" / "pii"


@pytest.mark.parametrize(
    ("text", "category", "value"),
    [
        ("mail jane.doe+x@mail.example.com.", "pii.email", "jane.doe+x@mail.example.com"),
        ("card 4111 1111 1111 1111 12/27", "pii.card", "4111 1111 1111 1111"),
        ("amex 3782-822463-10005!", "pii.card", "3782-822463-10005"),
        ("to GB82 WEST 1234 5698 7654 32 please", "pii.iban", "GB82 WEST 1234 5698 7654 32"),
        ("SSN: 536-32-3065", "pii.national_id", "536-32-3065"),
        ("cpf 529.982.247-25", "pii.national_id", "529.982.247-25"),
        ("codice fiscale RSSMRA85T10A562S", "pii.national_id", "RSSMRA85T10A562S"),
        ("PESEL 44051401359", "pii.national_id", "44051401359"),
        ("12345678Z is his DNI", "pii.national_id", "12345678Z"),
        ("身份证号11010519491231002X", "pii.national_id", "11010519491231002X"),
        ("NHS number 943 476 5919", "pii.health", "943 476 5919"),
        ("call +44 20 7946 0018 now", "pii.phone", "+44 20 7946 0018"),
        ("(251)500-2136x739 fax", "pii.phone", "(251)500-2136x739"),
        ("Mobile: 99 577450", "pii.phone", "99 577450"),
        ("012 345 6789-office", "pii.phone", "012 345 6789"),
        ("from 81.2.69.142:443", "pii.ip", "81.2.69.142"),
        ("at 2a02:26f0:13f:1a2::2b3c", "pii.ip", "2a02:26f0:13f:1a2::2b3c"),
        ("nic 3c:22:fb:4e:91:0a", "pii.mac", "3c:22:fb:4e:91:0a"),
        ("my driver's license number is F1628235", "pii.driver_licence", "F1628235"),
        ("passport no. 533380006", "pii.passport", "533380006"),
        ("routing number 021000021", "pii.account", "021000021"),
        ("born on 3rd of May 1971 in Oslo", "pii.birth_date", "3rd of May 1971"),
        ("Hi, my name is Ada Lund", "pii.person", "Ada Lund"),
        ("pay 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "pii.crypto_wallet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    ],
)
def test_each_kind_is_found_exactly(text: str, category: str, value: str) -> None:
    assert (category, value) in [(f.category, span(text, f)) for f in read("pii", text)]


@pytest.mark.parametrize(
    "text",
    [
        "the value is 463-82-0961 = -5021",
        "order 4864891580771594 was shipped",
        "10.0.155.152 answered, so did localhost:5715 and 127.0.0.1",
        "SKU930587-C and INV-0250-23172",
        "version 11.5.5-rc3, build 1.2.3.4",
        "at 2020-07-31 00:57:51, epoch 1738347394",
        "167x287x80 mm for 8,509.44 or 1.234.567 points",
        "doi 10.7530/a694720, ticket #2486722",
        "clone git@host.example.com:team/repo.git",
        "pi is 3.14159265358979",
        "the years 1914-1918 and 1939-1945",
        "Dear Sir or Madam,",
        "std::vector and a::b at 12:34:56",
        "200 000 000 people",
    ],
)
def test_numbers_that_only_look_personal_are_no_findings(text: str) -> None:
    assert read("pii", text) == []


def test_words_raise_a_score_and_their_absence_lowers_it() -> None:
    with_word = read("pii", "my PESEL is 44051401359", least=0.0)[0].score
    assert read("pii", "the value 44051401359 was stored", least=0.5) == []
    assert with_word > 0.9
    said = read("pii", "credit card 4111111111111111")[0].score
    bare = read("pii", "the value 4111111111111111")[0].score
    assert said > bare >= 0.5


def test_a_failing_check_is_no_national_number() -> None:
    assert read("pii", "PESEL 44051401358") == []
    assert read("pii", "codice fiscale RSSMRA85T10A562T") == []


def test_private_and_reserved_addresses_score_below_public_ones() -> None:
    scores = {
        text: max((f.score for f in read("pii", f"host {text} up", least=0.0)), default=0.0)
        for text in ("10.1.2.3", "203.0.113.9", "81.2.69.142")
    }
    assert scores["10.1.2.3"] < 0.5 <= scores["203.0.113.9"] < scores["81.2.69.142"]


def test_full_width_and_encoded_data_lead_back_to_the_original() -> None:
    text = "".join(chr(ord(sign) + 0xFEE0) for sign in "jane@mail.example.com")
    (found,) = read("pii", text)
    assert found.view == "folded"
    assert span(text, found) == text


def test_regions_decide_which_national_numbers_are_known_without_a_word() -> None:
    text = "we have 020 7946 0018 on file"
    british = create(scanner=registry().scanner, regions=["GB"])
    brazilian = create(scanner=registry().scanner, regions=["BR"])
    assert [f.category for f in ask(british, text)] == ["pii.phone"]
    assert ask(brazilian, text) == []
    assert british.version != brazilian.version


@pytest.mark.parametrize(
    ("form", "near", "low", "high"),
    [
        ("+41 38 549 02 90", {}, 0.5, 1.0),
        ("1738347394", {}, 0.0, 0.0),
        ("1738347394", {"phone": 3}, 0.7, 0.8),
        ("2020-07-31", {"phone": 3}, 0.0, 0.0),
        ("555-0142", {}, 0.0, 0.4),
        ("12345", {"phone": 1}, 0.0, 0.0),
    ],
)
def test_a_telephone_number_is_its_form_and_its_words(
    form: str, near: dict[str, int], low: float, high: float
) -> None:
    assert low <= phone_score(form, near)[0] <= high


def test_words_are_found_in_names_of_fields_and_in_scripts_without_spaces() -> None:
    assert "phone" in kinds_near('"phoneNumber": "12345678"', 16, 24)
    assert "phone" in kinds_near("我的手机号是13800138000", 6, 17)
    assert "card" not in kinds_near("discard 12345678", 8, 16)


def test_categories_are_known_and_cover_what_is_reported() -> None:
    assert set(detector("pii").categories) <= set(taxonomy())
    text = "SSN 536-32-3065, call +44 20 7946 0018, card 4111111111111111, Mr. Lund, 81.2.69.142"
    assert {f.category for f in read("pii", text)} <= set(detector("pii").categories)


@given(st.lists(st.sampled_from("0123456789 .-/()+xabc@:\n"), max_size=120).map("".join))
@settings(deadline=None, max_examples=150)
def test_runs_of_digits_are_read_whatever_stands_in_them(text: str) -> None:
    for finding in read("pii", text, least=0.0):
        assert 0 <= finding.location.start < finding.location.end <= len(text)
        assert 0.0 <= finding.score <= 1.0


def test_reading_time_grows_with_the_length_only() -> None:
    piece = "call 0203 555 0142 or 4111 1111 1111 1112, id 1234567890123 x "
    times = []
    for count in (40, 160):
        text = piece * count
        started = time.process_time()
        read("pii", text)
        times.append(time.process_time() - started)
    assert times[1] < 20 * max(times[0], 0.005)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is absent")
def test_structured_kinds_reach_their_goal_on_the_reporting_rows() -> None:
    wanted = {"EMAIL_ADDRESS": "pii.email", "CREDIT_CARD": "pii.card", "IBAN_CODE": "pii.iban",
              "US_SSN": "pii.national_id", "PHONE_NUMBER": "pii.phone"}  # fmt: skip
    found = total = 0
    with (DATA / "presidio_templates_b.dev.jsonl").open(encoding="utf-8") as rows:
        for row in map(json.loads, rows):
            spans = [s for s in row["meta"]["spans"] if s["type"] in wanted]
            findings = read("pii", row["text"]) if spans else []
            for s in spans:
                total += 1
                found += any(
                    f.category == wanted[s["type"]]
                    and f.location.start < s["end"]
                    and s["start"] < f.location.end
                    for f in findings
                )
    assert total > 250
    assert found / total >= 0.99


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is absent")
def test_look_alikes_of_the_reporting_rows_stay_below_two_percent() -> None:
    with (DATA / "lookalikes_b.dev.jsonl").open(encoding="utf-8") as rows:
        fired = [bool(read("pii", json.loads(line)["text"])) for line in rows]
    assert len(fired) > 600
    assert sum(fired) / len(fired) <= 0.02


@pytest.mark.parametrize(
    "text",
    [
        "電話番号は+81 3-1250-7823です。",
        "휴대폰 번호는 010-2004-8882입니다.",
        "Tel.: 01/234538635",
        "Tél. : 01/23/46/08/84",
        "Мой телефон 8 912 585 41 81.",
        "You can text 0505947062 any time.",
        "- 071 714 1094",
    ],
)
def test_telephone_numbers_in_the_writing_of_their_countries(text: str) -> None:
    assert [f.category for f in read("pii", text)] == ["pii.phone"]


@pytest.mark.parametrize(
    "text",
    [
        "Please send it to 55, Linden Nagar, Pune 560707.",
        "ул. Садовая, д. 11, кв. 250, Москва",
        "〒150-0041 東京都渋谷区神南1-2-3",
        "2-11-3 Meguro, Meguro-ku, Tokyo 150-9055",
        "Lindenova 706/6, 110 00 Praha",
        "Av. Kessel, 6826, apto 61, Santos",
        "Villacher Strasse 89",
        "서울시 종로구 세종대로 110",
    ],
)
def test_addresses_of_more_countries(text: str) -> None:
    assert "pii.address" in {f.category for f in read("pii", text)}


@pytest.mark.parametrize(
    "text",
    [
        "order 0123456789 has shipped",
        "The population was 12 345 678.",
        "version 12.4.1100.7",
        "978-3-1614-8410-0 is the ISBN",
        "Tel Aviv, 32.085300, 34.781768",
        "2, 4, 8, 16, 32, 64, 128, 256, 512, 1024",
        "took 123456us, 200 4521 bytes",
    ],
)
def test_everyday_numbers_are_nobodys(text: str) -> None:
    assert read("pii", text) == []
