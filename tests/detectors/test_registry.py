"""The registry: packaged detectors and those of other packages, made lazily, errors told plainly."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import pytest

from stanchion.core.errors import FilesError, UnknownNameError, UsageError
from stanchion.core.finding import AsyncDetector, Detector, DetectorInput
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import taxonomy
from stanchion.detectors import registry as module
from stanchion.detectors.describe import describe
from stanchion.detectors.registry import BUILTIN, Registry
from stanchion.detectors.views import build_views

CATALOGUE = """\
catalogue: mine
version: 1
patterns:
- id: custom.project
  pattern: 'Project (?:Falcon|Heron)'
  category: custom.pattern
  score: 0.7
"""


NEEDS = {
    "injection.encoder": ("onnxruntime", "tokenizers", "stanchion_ml_weights"),
    "model.sequence_classifier": ("onnxruntime", "tokenizers"),
    "ner.spacy": ("spacy",),
    "pii.presidio": ("presidio_analyzer", "spacy"),
}
NEEDS_FOLDER = frozenset({"model.sequence_classifier", "ner.spacy"})


@pytest.fixture(params=BUILTIN)
def packaged(request: pytest.FixtureRequest) -> str:
    """The id of a packaged detector whose optional parts are installed."""
    missing = [part for part in NEEDS.get(request.param, ()) if find_spec(part) is None]
    if missing:
        pytest.skip(f"{request.param} needs {', '.join(missing)}")
    return str(request.param)


def test_every_packaged_detector_keeps_the_protocol(packaged: str) -> None:
    detector = Registry().create(packaged)
    assert isinstance(detector, Detector | AsyncDetector)
    assert detector.id == packaged
    assert detector.version
    assert set(detector.categories) <= set(taxonomy())
    if not isinstance(detector, Detector) or packaged in NEEDS_FOLDER:
        return  # a judge without a model has nobody to ask
    view_set = build_views("An ordinary sentence about the weather in Rome.")
    assert list(detector.detect(DetectorInput(view_set=view_set, origin=Origin.USER))) == []


def test_every_packaged_detector_can_be_described(packaged: str) -> None:
    row = describe(Registry(), packaged, in_detail=True)
    assert row["provider"] == "stanchion"
    assert row["categories"] or packaged == "custom"


def test_an_unknown_detector_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="secrets"):
        Registry().create("secret")


def test_unknown_options_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no_such_option"):
        Registry().create("secrets", no_such_option=1)


def test_custom_patterns_come_from_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CATALOGUE)
    detector = Registry().create("custom", files=["mine.yaml"], base=tmp_path)
    view_set = build_views("About Project Heron: quiet.")
    (found,) = detector.detect(DetectorInput(view_set=view_set, origin=Origin.USER))
    assert (found.category, found.location.start, found.location.end) == ("custom.pattern", 6, 19)
    assert detector.categories == ("custom.pattern",)
    assert detector.version != Registry().create("custom").version


def test_a_users_file_may_not_speak_for_packaged_detectors(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CATALOGUE.replace("custom.project", "secrets.project"))
    with pytest.raises(FilesError, match="custom"):
        Registry().create("custom", files=["mine.yaml"], base=tmp_path)


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shout_plugin.py").write_text(
        "from stanchion.detectors.custom import CustomDetector\n"
        "def create(*, scanner, loud=True):\n"
        "    return CustomDetector(scanner)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("shout", "shout_plugin:create", module.ENTRY_POINT_GROUP),
        EntryPoint("pii", "shout_plugin:create", module.ENTRY_POINT_GROUP),
        EntryPoint("broken", "no_such_module:create", module.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    yield
    sys.modules.pop("shout_plugin", None)


@pytest.mark.usefixtures("offered")
def test_other_packages_offer_detectors_by_entry_point() -> None:
    registry = Registry()
    assert "shout" in registry.ids()
    assert "shout_plugin" not in sys.modules
    assert registry.create("shout", loud=False).id == "custom"


@pytest.mark.usefixtures("offered")
def test_a_packaged_detector_cannot_be_taken_over() -> None:
    assert Registry().ids().count("pii") == 1
    assert type(Registry().create("pii")).__module__ == "stanchion.detectors.pii"


@pytest.mark.usefixtures("offered")
def test_a_broken_package_is_named() -> None:
    with pytest.raises(UsageError, match="no_such_module"):
        Registry().create("broken")
