"""Halves of UTF-16 pairs, as JSON can bring them in: every packaged detector reads texts that hold them."""

from __future__ import annotations

import json

import pytest
from reading import registry

from stanchion.core.errors import MissingExtraError, UsageError
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.registry import BUILTIN
from stanchion.detectors.surrogates import replaced
from stanchion.detectors.views import build_views

LONE = json.loads(r'"\ud800"')
TEXT = (
    f"I was born on 3 May 2020 {LONE} in Oslo. [1] [{LONE}]\n```py\nos.system(x, '{LONE}')\n{LONE} = (\n```\n"
    f"```sh\necho {LONE}; rm -rf /{LONE}\n``` ![a](http://a.b/?q={LONE}) http://a.b/{LONE} a{LONE}@b.co"
)
CONTEXT = ("documents", "document_ids", "question", "system_prompt", "canaries", "foreign_markers")


@pytest.mark.parametrize("name", sorted(BUILTIN))
@pytest.mark.parametrize(
    ("text", "given"), [(TEXT, TEXT), (LONE, LONE), ("It was on 4 May.", TEXT), (TEXT, "It was on 4 May.")]
)
def test_every_detector_reads_lone_surrogates(name: str, text: str, given: str) -> None:
    try:
        detector = registry().create(name)
    except (MissingExtraError, UsageError) as error:
        pytest.skip(str(error))
    if not hasattr(detector, "detect"):
        pytest.skip("it waits on the outside")
    context = dict.fromkeys(CONTEXT, (given,))
    asked = DetectorInput(view_set=build_views(text), origin=Origin.MODEL, context=context)
    try:
        found = detector.detect(asked)
    except UsageError as error:
        pytest.skip(str(error))
    assert all(0 <= f.location.start <= f.location.end <= len(text) for f in found)


def test_places_stay_where_they_are() -> None:
    assert replaced(f"a{LONE}b\U0001f600") == "a\ufffdb\U0001f600"
