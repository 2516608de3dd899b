"""An answer that a detector does not read to its end does not pass a policy that fails closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.core.decision import CheckStatus, Surface
from stanchion.guard.pipeline import Guard

POLICY = """\
version: 1
name: long-answers
detectors:
  {detector}: {{threshold: 0.5, fail: closed, deadline_ms: 60000}}
rules:
- id: dangerous
  when: {{category: [code.*, grounding.*], surface: output, min_score: 0.8}}
  effect: block
limits: {{text_characters: 10000000, total_characters: 10000000, output_characters: 10000000}}
"""


def made(folder: Path, detector: str) -> Guard:
    file = folder / "policy.yaml"
    file.write_text(POLICY.format(detector=detector))
    return Guard.load(str(file))


def test_code_behind_a_hundred_pieces_is_found(tmp_path: Path) -> None:
    guard = made(tmp_path, "code")
    harmless = "```py\na = 1\n```\n" * 200
    assert guard.check(harmless, surface=Surface.OUTPUT).allowed
    assert not guard.check(f"{harmless}```sh\nrm -rf /\n```", surface=Surface.OUTPUT).allowed


@pytest.mark.parametrize("detector", ["code", "grounding"])
def test_an_answer_too_long_to_be_read_does_not_pass(tmp_path: Path, detector: str) -> None:
    guard = made(tmp_path, detector)
    documents = {"documents": ("a word.",)}
    checked = guard.check("a word. " * 150_000, surface=Surface.OUTPUT, context=documents)
    assert not checked.allowed
    (record,) = [r for r in checked.decision.checks if r.detector == detector]
    assert record.status is CheckStatus.ERRORED
