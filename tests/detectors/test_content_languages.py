"""A language is read wherever in a text it begins."""

from __future__ import annotations

import pytest
from reading import read

from stanchion.detectors.content_rules import content_rules


@pytest.mark.parametrize("locale", ["", "en-US"])
def test_a_language_behind_a_long_text_of_another_is_read(locale: str) -> None:
    long = "The weather is fine today and so it goes on. " * 200
    rules = content_rules()
    assert "ru" in rules.languages_of(f"{long}Я тебя убью", locale)
    assert "de" in rules.languages_of(
        f"{long}Ich weiß nicht, was ich mit dir und der Sache machen soll.", locale
    )
    assert read("content", f"{long}\n\nЯ тебя убью.")
