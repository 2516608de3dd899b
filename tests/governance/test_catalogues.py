"""Catalogues: every id with its edition, and what is said of a citation that does not stand."""

from __future__ import annotations

import pytest

from stanchion.core.taxonomy import taxonomy
from stanchion.governance.catalogues import catalogues, citation_fault, spellings

SIZES = {
    ("eu-ai-act", "Regulation (EU) 2024/1689"): 17,
    ("iso-iec-42001-annex-a", "ISO/IEC 42001:2023"): 9 + 38,
    ("mitre-atlas", "2026.07"): 178 + 16 + 37,
    ("mlcommons-ailuminate", "1.0"): 12,
    ("nist-ai-600-1", "2024-07"): 12,
    ("nist-ai-rmf", "1.0 (NIST AI 100-1)"): 19 + 72,
    ("owasp-agentic-top10", "2026"): 10,
    ("owasp-llm-top10", "2025"): 10,
    ("owasp-llm-top10", "2026"): 10,
}


def test_catalogues_are_complete() -> None:
    found = {(name, e.version): len(e.titles) for name, editions in catalogues().items() for e in editions}
    assert found == SIZES


def test_every_catalogue_names_its_source_and_licence() -> None:
    for editions in catalogues().values():
        assert all(e.source and e.licence and e.digest.startswith("sha256:") for e in editions)


def test_ids_move_between_editions() -> None:
    first, second = catalogues()["owasp-llm-top10"]
    assert first.titles["LLM06:2025"] == second.titles["LLM03:2026"] == "Excessive Agency"


@pytest.mark.parametrize(
    ("catalogue", "version", "entry"),
    [
        ("owasp-llm-top10", "2025", "LLM06:2025"),
        ("mitre-atlas", "2026.07", "AML.T0051.001"),
        ("nist-ai-rmf", "1.0", "MEASURE 2.10"),
        ("iso-iec-42001-annex-a", "2023", "A.2.2"),
        ("eu-ai-act", "2024/1689", "Art. 14"),
    ],
)
def test_right_citations_stand(catalogue: str, version: str, entry: str) -> None:
    assert citation_fault(catalogue, version, entry) is None


@pytest.mark.parametrize(
    ("catalogue", "version", "entry", "key", "said"),
    [
        ("owasp-llm-top", "2025", "LLM06:2025", "catalogue", "Did you mean 'owasp-llm-top10'"),
        ("owasp-llm-top10", "2024", "LLM06:2024", "version", "Known: 2025, 2026."),
        ("owasp-llm-top10", "2026", "LLM06:2025", "id", "LLM06:2026"),
        ("owasp-llm-top10", "", "LLM06:2025", "version", "Known: 2025, 2026."),
        ("mitre-atlas", "2026.07", "AML.T0019", "id", "Cite 'AML.T0115.000' instead."),
        ("mitre-atlas", "2026.07", "AML.T9999", "id", "AML.T"),
    ],
)
def test_wrong_citations_say_what_is_wrong(
    catalogue: str, version: str, entry: str, key: str, said: str
) -> None:
    fault = citation_fault(catalogue, version, entry)
    assert fault is not None
    assert fault.key == key
    assert said in f"{fault.message} {fault.hint}"


def test_editions_may_be_written_short() -> None:
    assert "2023" in spellings("ISO/IEC 42001:2023")
    assert spellings("1.0 (NIST AI 100-1)") == {"1.0", "1.0 (NIST AI 100-1)"}


def test_the_taxonomy_cites_ids_that_exist() -> None:
    known = {entry for editions in catalogues().values() for e in editions for entry in e.titles}
    cited = {mapping for category in taxonomy().values() for mapping in category.mappings}
    assert cited <= known
