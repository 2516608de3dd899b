"""The demo: honest arms, shared answers, and no planted datum in anything that it wrote."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from pattern_cache import give_patterns
from stanchion.config import Settings, load_settings
from stanchion.core.components import ComponentSet
from stanchion.core.interaction import Interaction, Reply, assistant
from stanchion.demo import FEATURE, Demo, DemoOptions, example_folder, run_demo
from stanchion.evals.progress import Silent
from stanchion.evals.results import TargetKind
from stanchion.evals.verdict import VerdictOutcome

STAFF_CODE = re.compile(rb"LARK-[A-Z0-9]{6}")


class Parrot:
    """The worst model there is: it repeats its whole prompt, secrets and all."""

    id = "parrot"
    components = ComponentSet(model="sha256:" + "0" * 64)

    def __init__(self) -> None:
        self.asked = 0

    async def invoke(self, interaction: Interaction) -> Interaction:
        self.asked += 1
        words = "\n".join(message.text for message in interaction.messages)
        return msgspec.structs.replace(interaction, reply=Reply(message=assistant(words), latency_ms=1.0))

    async def aclose(self) -> None:
        """Nothing to close."""


def settings_in(folder: Path) -> Settings:
    give_patterns(folder / ".cache" / "stanchion")
    return load_settings(environ={"HOME": str(folder)})


def play(folder: Path, model: Parrot, *, fresh: bool = False) -> Demo:
    options = DemoOptions(folder=folder / "out", fresh=fresh)
    return asyncio.run(run_demo(settings_in(folder), options, watch=lambda _: Silent(), model=model))


@pytest.fixture(scope="module")
def parroted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Parrot, Demo, str]]:
    folder = tmp_path_factory.mktemp("demo")
    model = Parrot()
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield folder, model, play(folder, model), "\n".join(lines)
    finally:
        logging.getLogger().removeHandler(handler)


def planted() -> list[bytes]:
    """Every address and number of the made-up customers."""
    cases = yaml.safe_load((example_folder() / FEATURE / "suites/cases/personal-data.yaml").read_text())
    return [text.encode() for case in cases["cases"] for text in case["expect"]["excludes"]]


def test_nothing_that_the_demo_wrote_holds_personal_data_or_the_staff_code(
    parroted: tuple[Path, Parrot, Demo, str],
) -> None:
    folder, _, found, log = parroted
    from stanchion.evals.report.write import write_report

    for extension in ("html", "json", "md", "xml", "sarif"):
        write_report(folder / "out" / f"report.{extension}", found.report)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    needles = planted()
    assert len(needles) == 20
    for path in files:
        content = plain_bytes(path)
        assert not [needle for needle in needles if needle in content], path
        assert not STAFF_CODE.search(content), path
    assert not [needle for needle in needles if needle.decode() in log]


def plain_bytes(path: Path) -> bytes:
    """A file's bytes, with compressed segments opened."""
    content = path.read_bytes()
    if path.suffix == ".zst":
        from backports import zstd

        return zstd.decompress(content)
    return content


def test_a_parrot_leaks_everything_and_the_guard_stops_the_canary(
    parroted: tuple[Path, Parrot, Demo, str],
) -> None:
    _, _, found, _ = parroted
    unguarded, guarded = found.runs[0].verdict, found.runs[1].verdict
    assert unguarded is not None
    assert guarded is not None
    before = {c.id: c for c in unguarded.criteria}
    after = {c.id: c for c in guarded.criteria}
    assert unguarded.outcome is VerdictOutcome.FAIL
    assert before["direct injection"].bad == before["direct injection"].n
    assert before["personal data"].bad == before["personal data"].n
    assert after["direct injection"].bad == 0
    assert after["personal data"].bad == 0


def test_the_guarded_arm_reuses_answers_to_prompts_that_the_guard_left_alone(
    parroted: tuple[Path, Parrot, Demo, str],
) -> None:
    _, model, found, _ = parroted
    first, second = found.runs[0].summary, found.runs[1].summary
    assert first.reused == first.cached == 0
    assert second.reused > 50
    assert model.asked == found.asked < 2 * first.counts.total


def test_scripted_arms_are_apart_and_the_guard_stops_forbidden_calls(
    parroted: tuple[Path, Parrot, Demo, str],
) -> None:
    _, _, found, _ = parroted
    assert [run.header.target_kind for run in found.runs] == [
        TargetKind.REAL,
        TargetKind.REAL,
        TargetKind.SCRIPTED,
        TargetKind.SCRIPTED,
    ]
    rows = {c.id: c for run in found.runs[2:3] if run.verdict for c in run.verdict.criteria}
    assert rows["forbidden calls"].bad == rows["forbidden calls"].n == 16
    guarded = {c.id: c for run in found.runs[3:] if run.verdict for c in run.verdict.criteria}
    assert guarded["forbidden calls"].bad == 0
    assert guarded["wanted calls"].bad == 0


def test_a_second_demo_asks_nothing_and_a_fresh_one_asks_again(
    parroted: tuple[Path, Parrot, Demo, str],
) -> None:
    folder, model, first, _ = parroted
    asked = model.asked
    again = play(folder, model)
    assert model.asked == asked
    assert again.runs[0].summary.cached == again.runs[0].summary.counts.total
    assert [r.verdict and r.verdict.outcome for r in again.runs] == [
        r.verdict and r.verdict.outcome for r in first.runs
    ]
    play(folder, model, fresh=True)
    assert model.asked == 2 * asked


def test_the_packaged_suites_and_safety_folder_pass_the_check() -> None:
    from stanchion.core.clock import SystemClock
    from stanchion.detectors.registry import Registry
    from stanchion.governance.checks import check_paths

    report = check_paths([example_folder() / "safety"], clock=SystemClock(), detectors=Registry().ids())
    assert report.problems == ()
