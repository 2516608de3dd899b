"""What `stanchion eval run` plugs together and runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.cli.output import note
from stanchion.cli.progress import RunProgress
from stanchion.core.errors import StanchionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stanchion.config import Settings
    from stanchion.core.target import Target
    from stanchion.detectors.registry import Registry
    from stanchion.evals.cache import AnswerCache
    from stanchion.evals.conditions import RunSettings
    from stanchion.evals.rundata import RunData
    from stanchion.evals.scorers.scorer import AnyScorer
    from stanchion.evals.suite import Suite
    from stanchion.evals.target_file import AnyTargetModel


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Everything the command line says about a run."""

    suite: Suite
    settings: Settings
    run_settings: RunSettings
    runs: Path
    target: str | None = None
    resume: str = ""
    fresh: bool = False


def run_request(request: RunRequest) -> RunData:
    """Run it, with a progress bar; the verdict too, when the suite has criteria.

    Raises:
        UsageError: for a target or scorer that cannot be made, and a run that cannot go on.
        KeyboardInterrupt: when it was stopped; the run is kept, and a note says how to go on.
    """
    import msgspec

    from stanchion.bootstrap import make_answer_cache, make_registry, make_scrub, make_target
    from stanchion.cli.eval_target import target_model
    from stanchion.cli.eval_trouble import resume_command
    from stanchion.core.clock import SystemClock
    from stanchion.evals.gating import judge_run
    from stanchion.evals.runlog import RunFolder

    suite, settings = request.suite, request.settings
    model = target_model(request.target, suite)
    registry = make_registry(settings)
    scorers = _scorers(suite, registry, settings)
    run_settings = msgspec.structs.replace(request.run_settings, environment=settings.environment)
    cache = make_answer_cache(settings, fresh=request.fresh)
    with RunProgress() as progress:
        try:
            folder = suite.path.parent
            target = make_target(model, settings, folder=folder, registry=registry, answers=cache)
            work = _Work(
                replace(request, run_settings=run_settings),
                model,
                target,
                scorers,
                cache,
                make_scrub(settings, registry=registry),
            )
            run = asyncio.run(work.run(progress))
        except KeyboardInterrupt:
            run_id = progress.run_id or "latest"
            go_on = resume_command(suite.path, run_id, target=request.target, runs=request.runs)
            note(f"Stopped. Go on: {go_on}")
            raise
        except StanchionError:
            if progress.run_id:
                note(f"Run {progress.run_id} broke off. What was judged before is kept.")
            raise
        finally:
            cache.close()
    criteria = suite.file.criteria
    if not criteria:
        return run
    verdict = judge_run(run, criteria, runs=RunFolder(request.runs), clock=SystemClock())
    return replace(run, verdict=verdict)


@dataclass(frozen=True, slots=True)
class _Work:
    """One run with all its parts in hand."""

    request: RunRequest
    model: AnyTargetModel
    target: Target
    scorers: tuple[AnyScorer, ...]
    cache: AnswerCache
    scrub: Callable[[str], str]

    async def run(self, progress: RunProgress) -> RunData:
        """Run, and close the target whatever happens."""
        from stanchion.core.version import package_version
        from stanchion.evals.run_suite import Surroundings, run_suite
        from stanchion.evals.runlog import RunFolder
        from stanchion.evals.target import target_kind

        request, suite = self.request, self.request.suite
        around = Surroundings(
            runs=RunFolder(request.runs),
            observer=progress,
            answers=self.cache,
            scrub=self.scrub,
            version=package_version(),
            notes=suite.census.notes() if suite.planned is not None else (),
        )
        try:
            return await run_suite(
                suite,
                self.target,
                scorers=self.scorers,
                around=around,
                settings=request.run_settings,
                kind=target_kind(self.model),
                resume=request.resume,
            )
        finally:
            await self.target.aclose()


def _scorers(suite: Suite, registry: Registry, settings: Settings) -> tuple[AnyScorer, ...]:
    from stanchion.bootstrap import judge_factory
    from stanchion.evals.scorers.build import build_scorers

    return build_scorers(
        suite.file.scorers,
        detectors=registry.create,
        judges=judge_factory(settings),
        expects_refusal=suite.expects_refusal,
    )
