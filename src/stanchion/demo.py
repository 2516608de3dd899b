"""The demo: the support assistant against a real local model, unguarded and guarded, judged and compared.

Four runs. Two ask the real model the same cases, without and with the guard; where the guard leaves the
prompt as it was, the guarded arm takes over the unguarded answer by the digest of the request. Two more play
tool calls with a scripted agent that obeys whoever spoke last; they are never counted as the model's.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from stanchion.bootstrap import make_answer_cache, make_guard, make_registry, make_scrub
from stanchion.core.clock import Clock, SystemClock
from stanchion.core.resources import data_path
from stanchion.core.version import package_version
from stanchion.evals.cache import CachedTarget
from stanchion.evals.comparison import compare
from stanchion.evals.gate import GateContext, gate
from stanchion.evals.report.model import Report, build_report
from stanchion.evals.results import TargetKind

if TYPE_CHECKING:
    from stanchion.config import Settings
    from stanchion.core.components import ComponentSet
    from stanchion.core.interaction import Interaction
    from stanchion.core.target import Target
    from stanchion.evals.progress import Observer
    from stanchion.evals.rundata import RunData
    from stanchion.evals.suite import Suite

EXAMPLE = ("examples", "support-assistant")
FEATURE = Path("safety") / "features" / "support-assistant"
WEAK_MODEL = (
    "The model has 135 million parameters: it leaks, rambles and rarely refuses. The numbers are about "
    "this model and this guard, not about yours. INCONCLUSIVE means it: the sample is too small to tell."
)
OWN_CASES = (
    "The shop's policy and its suite were written by the same hands: its word list knows some of the "
    "disallowed requests, and the guard is told the staff code it must keep. Expect less on attacks that "
    "nobody wrote down."
)
SCRIPTED = (
    "The arms called 'tools' are answered by a script that obeys whoever spoke last. They show what the "
    "guard stops; they say nothing about a model."
)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Where the demo writes, and whether answers of earlier runs may be used."""

    folder: Path
    fresh: bool = False
    instances: int = 0


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo found: the runs with their verdicts, the report, and how often the model was asked."""

    runs: tuple[RunData, ...]
    report: Report
    elapsed_s: float
    asked: int


def example_folder() -> Path:
    """The packaged example."""
    return Path(str(data_path(*EXAMPLE)))


async def run_demo(
    settings: Settings,
    options: DemoOptions,
    *,
    watch: Callable[[str], Observer],
    clock: Clock | None = None,
    model: Target | None = None,
) -> Demo:
    """Run all four arms and build the report.

    `watch` gives an observer for the arm of a name; `model` takes the place of the packaged one.

    Raises:
        MissingExtraError: when llama.cpp or the packaged model is not installed.
        UnavailableError: when the model cannot be loaded.
    """
    clock = clock or SystemClock()
    began = clock.monotonic_ns()
    stage = _Stage(settings, options, watch=watch, clock=clock, model=model)
    try:
        runs = [*await stage.real_arms(), *await stage.scripted_arms()]
    finally:
        await stage.aclose()
    elapsed_s = (clock.monotonic_ns() - began) / 1e9
    return Demo(runs=tuple(runs), report=stage.report(runs), elapsed_s=elapsed_s, asked=stage.asked)


class _Counted:
    """A target that counts how often it is asked."""

    def __init__(self, inner: Target) -> None:
        self._inner = inner
        self.id = inner.id
        self.asked = 0

    @property
    def components(self) -> ComponentSet:
        """The components of the target behind it."""
        return self._inner.components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """Ask the target behind it."""
        self.asked += 1
        return await self._inner.invoke(interaction)

    async def aclose(self) -> None:
        """Close the target behind it."""
        await self._inner.aclose()


class _Stage:
    """What the arms share: detectors, guard, model, cache, run folder."""

    def __init__(
        self,
        settings: Settings,
        options: DemoOptions,
        *,
        watch: Callable[[str], Observer],
        clock: Clock,
        model: Target | None,
    ) -> None:
        self._settings = settings
        self._options = options
        self._watch = watch
        self._clock = clock
        self._example = example_folder()
        self._feature = self._example / FEATURE
        self._registry = make_registry(settings)
        self._scrub = make_scrub(settings, registry=self._registry)
        policy = self._feature / "policy.yaml"
        self._guard = make_guard(policy, settings, registry=self._registry, clock=clock)
        self._cache = make_answer_cache(settings, fresh=options.fresh, clock=clock)
        self._assistant = _load_assistant(self._example / "assistant.py")
        self._instances = options.instances or min(2, os.cpu_count() or 1)
        self._counted = _Counted(model or self._local_model())
        self._model = CachedTarget(self._counted, self._cache)

    @property
    def asked(self) -> int:
        """How many answers the model gave now."""
        return self._counted.asked

    def _local_model(self) -> Target:
        from stanchion.models.local import LocalModel, LocalOptions

        return LocalModel(options=LocalOptions(instances=self._instances), clock=self._clock)

    async def real_arms(self) -> list[RunData]:
        """Unguarded first, so that the guarded arm finds its answers."""
        suite = self._suite("support-assistant.yaml")
        plain = self._assistant.SupportAssistant(self._model, self._example)
        guarded = self._assistant.SupportAssistant(self._model, self._example, guard=self._guard)
        return [
            await self._run(suite, plain, title="unguarded", kind=TargetKind.REAL),
            await self._run(suite, guarded, title="guarded", kind=TargetKind.REAL),
        ]

    async def scripted_arms(self) -> list[RunData]:
        """The hijacked agent with tools, without and with the guard."""
        from stanchion.models.script import read_script
        from stanchion.models.scripted import ScriptedModel

        suite = self._suite("tools.yaml")
        path = self._feature / "suites" / "scripts" / "hijacked-agent.yaml"
        script = read_script(yaml.safe_load(path.read_text("utf-8")), where=path.name)
        runs = []
        for title, guard in (("tools unguarded", None), ("tools guarded", self._guard)):
            agent = self._assistant.SupportAssistant(
                ScriptedModel(script), self._example, guard=guard, offers_tools=True
            )
            runs.append(await self._run(suite, agent, title=title, kind=TargetKind.SCRIPTED))
        return runs

    def report(self, runs: Sequence[RunData]) -> Report:
        """All arms in one report, the guarded beside the unguarded."""
        real, scripted = compare(runs[0], runs[1]), compare(runs[2], runs[3])
        both = msgspec.structs.replace(
            real,
            rows=(*real.rows, *scripted.rows),
            notes=tuple(dict.fromkeys((*real.notes, *scripted.notes))),
        )
        return build_report(
            runs,
            title="Support assistant of a web shop",
            made_at=self._clock.now(),
            version=package_version(),
            comparison=both,
            notes=(WEAK_MODEL, OWN_CASES, SCRIPTED),
            facts={"model": "SmolLM2-135M-Instruct, in process"},
        )

    async def aclose(self) -> None:
        """Let go of the model and the cache."""
        await self._model.aclose()
        self._cache.close()

    def _suite(self, name: str) -> Suite:
        from stanchion.evals.suite import load_suite

        return load_suite(self._feature / "suites" / name)

    async def _run(self, suite: Suite, target: Target, *, title: str, kind: TargetKind) -> RunData:
        from stanchion.evals.pace import PaceSettings
        from stanchion.evals.run_suite import Surroundings, run_suite, settings_of
        from stanchion.evals.runlog import RunFolder
        from stanchion.evals.scorers.build import build_scorers

        pace = PaceSettings(start=self._instances, most=self._instances)
        around = Surroundings(
            runs=RunFolder(self._options.folder / "runs"),
            clock=self._clock,
            observer=self._watch(title),
            answers=self._cache,
            scrub=self._scrub,
            version=package_version(),
        )
        run = await run_suite(
            suite,
            target,
            scorers=build_scorers(suite.file.scorers, detectors=self._registry.create),
            around=around,
            settings=msgspec.structs.replace(settings_of(suite), pace=pace),
            kind=kind,
        )
        context = GateContext(header=run.header, summary=run.summary, now=self._clock.now())
        verdict = gate(run.results(), suite.file.criteria, context)
        return replace(run, title=title, verdict=verdict)


def _load_assistant(path: Path) -> Any:
    """The example's own code, which is no package."""
    spec = importlib.util.spec_from_file_location("stanchion_example_support_assistant", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
