"""Signals: languages of sentences written here, loops, lengths, topics, and any text at all."""

# ruff: noqa: RUF001 - sentences in other scripts

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import ask, registry

from stanchion.core.errors import UsageError
from stanchion.core.finding import Severity
from stanchion.detectors.context_language import guess_language
from stanchion.detectors.context_signals import signals_of

SENTENCES = {
    "en": "Where can I find the nearest bakery that is open on Sundays?",
    "de": "Wo finde ich die nächste Bäckerei, die am Sonntag geöffnet ist?",
    "fr": "Où est la boulangerie la plus proche qui ouvre le dimanche ?",
    "es": "¿Dónde está la panadería más cercana que abre los domingos?",
    "it": "Dove si trova il panificio più vicino che è aperto di domenica?",
    "pt": "Onde fica a padaria mais próxima que não fecha aos domingos?",
    "nl": "Waar is de dichtstbijzijnde bakker die op zondag open is?",
    "sv": "Var finns det ett bageri som är öppet på söndagar?",
    "fi": "Missä on lähin leipomo, joka on auki myös sunnuntaina?",
    "pl": "Gdzie jest najbliższa piekarnia, która jest otwarta w niedzielę?",
    "cs": "Kde je nejbližší pekárna, která má v neděli otevřeno?",
    "ro": "Unde este cea mai apropiată brutărie care este deschisă și duminica?",
    "hu": "Hol van a legközelebbi pékség, amely vasárnap is nyitva van?",
    "tr": "Pazar günü açık olan en yakın fırın nerede ve nasıl gidilir?",
    "id": "Di mana toko roti yang buka pada hari Minggu dan tidak jauh dari sini?",
    "vi": "Tiệm bánh nào gần nhất mở cửa vào chủ nhật và không quá đắt?",
    "sw": "Ni wapi kuna duka la mkate ambalo liko wazi siku ya Jumapili na si ghali?",
    "ru": "Где находится ближайшая булочная, которая открыта по воскресеньям?",
    "uk": "Де є найближча пекарня, яка працює також у неділю?",
    "ar": "أين يوجد أقرب مخبز مفتوح في يوم الأحد من هذا المكان؟",
    "fa": "نزدیک‌ترین نانوایی که در روز یکشنبه باز است کجا است؟",
    "hi": "रविवार को खुली रहने वाली बेकरी कहाँ है?",
    "bn": "রবিবার খোলা থাকে এমন বেকারি কোথায়?",
    "th": "ร้านขนมปังที่เปิดวันอาทิตย์อยู่ที่ไหน",
    "ko": "일요일에 여는 가장 가까운 빵집은 어디인가요?",
    "ja": "日曜日に開いている一番近いパン屋はどこですか。",
    "zh": "星期天营业的最近的面包店在哪里？",
    "he": "איפה המאפייה הקרובה שפתוחה ביום ראשון?",
    "el": "Πού είναι ο πλησιέστερος φούρνος που ανοίγει την Κυριακή;",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_tells_its_language(language: str) -> None:
    assert guess_language(SENTENCES[language]).language == language


def test_what_tells_nothing_is_undetermined() -> None:
    assert [guess_language(text).language for text in ("", "12345", "Zyx Qwv", "ORD-1234")] == ["und"] * 4


def test_scripts_are_shares_of_letters() -> None:
    assert dict(guess_language("abcд").scripts) == {"latin": 0.75, "cyrillic": 0.25}


def rules(text: str, **options: object) -> list[str]:
    return [f.rule for f in ask(registry().create("context", **options), text, least=0.2)]


def test_loops_and_runs_are_repetition_and_prose_is_not() -> None:
    assert rules("I can help you with that. " * 40) == ["context.repetition"]
    assert rules("no" * 5 + "!" * 200) == ["context.repetition"]
    assert rules(" ".join(SENTENCES.values())) == []
    started_well = " ".join(f"word{i} means thing{i}" for i in range(3000)) + " and again and again" * 300
    assert signals_of(started_well).repetition > 0.5


def test_other_languages_and_topics_are_findings_only_where_the_feature_says_so() -> None:
    assert rules(SENTENCES["de"]) == []
    assert rules(SENTENCES["de"], languages=["en"]) == ["context.language"]
    assert rules(SENTENCES["de"], languages=["en", "de"]) == []
    assert rules("ORD-1234", languages=["en"]) == []
    topics = {
        "returns": ["How do I return a parcel and get a refund for the order?", "exchange a damaged item"]
    }
    assert rules("I want a refund for my damaged parcel, the order arrived late", topics=topics) == []
    assert rules("Compose a sonnet about quantum gravity and medieval castles", topics=topics) == [
        "context.topic"
    ]
    assert rules("x " * 30, max_characters=20) == ["context.length"]


def test_findings_are_signals() -> None:
    for finding in ask(registry().create("context"), "again and again " * 50, least=0):
        assert finding.severity is Severity.INFO


def test_questions_and_instructions_are_counted() -> None:
    found = signals_of("Write a poem. Is it good? It is.")
    assert found.question_share == pytest.approx(1 / 3)
    assert found.instruction_share == pytest.approx(1 / 3)
    assert signals_of("aaaa").entropy == 0.0
    assert signals_of("abcd").entropy == 2.0


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="unknown languages"):
        registry().create("context", languages=["xx"])
    with pytest.raises(UsageError, match="no words"):
        registry().create("context", topics={"a": ["the of"]})


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=400))
def test_any_text_has_signals_in_their_ranges(text: str) -> None:
    found = signals_of(text)
    assert found.characters == len(text)
    for share in (found.certainty, found.repetition, found.question_share, found.instruction_share):
        assert 0.0 <= share <= 1.0
    assert sum(share for _, share in found.scripts) <= 1.001


@pytest.mark.parametrize("unit", ["a", "ab ", "?", "\u0e01", "\n", "!!"])
def test_a_long_text_costs_no_more_than_its_sample(unit: str) -> None:
    started = time.process_time()
    signals_of(unit * 2_000_000)
    assert time.process_time() - started < 1.0
