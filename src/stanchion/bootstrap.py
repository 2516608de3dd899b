"""The one place where real objects are plugged together: settings in; guards, models and targets out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanchion.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from stanchion.config import Settings
    from stanchion.core.target import Target
    from stanchion.detectors.registry import Registry
    from stanchion.evals.cache import AnswerCache
    from stanchion.evals.suite import Suite
    from stanchion.evals.target import TargetFactory
    from stanchion.guard.pipeline import Guard

WITHHELD = "[withheld]"
ANSWERS_FILE = "answers.sqlite"


def make_registry(settings: Settings) -> Registry:
    """The packaged and installed detectors; their automaton is cached where the settings say."""
    from stanchion.detectors.packaged import packaged_catalogues
    from stanchion.detectors.registry import Registry
    from stanchion.detectors.scan import Scanner

    folder = settings.cache_dir
    return Registry(Scanner(packaged_catalogues(cache_dir=folder), cache_dir=folder))


def make_guard(policy: Path | str, settings: Settings, *, clock: Clock | None = None) -> Guard:
    """A guard by policy file or packaged name."""
    from stanchion.guard.pipeline import Guard

    return Guard.load(policy, registry=make_registry(settings), clock=clock)


def make_scrub(settings: Settings) -> Callable[[str], str]:
    """What takes personal data and secrets out of words that are to be stored.

    A text in which a check could not run is withheld whole.
    """
    guard = make_guard("scrub", settings)

    def scrub(text: str) -> str:
        checked = guard.check(text, surface="output")
        return checked.text if checked.allowed else WITHHELD

    return scrub


def make_answer_cache(
    settings: Settings, *, fresh: bool = False, path: Path | None = None, clock: Clock | None = None
) -> AnswerCache:
    """The sealed answers of earlier runs; `fresh` asks the model again and writes anew."""
    from stanchion.evals.cache import AnswerCache

    where = path or settings.cache_dir / ANSWERS_FILE
    return AnswerCache(where, clock=clock or SystemClock(), fresh=fresh)


def target_factories(settings: Settings, *, folder: Path, retries: bool = True) -> dict[str, TargetFactory]:
    """The kinds of target that evals cannot make by themselves: endpoints, the local model, guards.

    `retries` False is for a caller that asks again itself, such as a run: two who retry multiply.
    """

    def endpoint(model: Any) -> Target:
        return _endpoint(model, settings, retries=retries)

    def guarded(model: Any) -> Target:
        return _guarded(model, settings, folder=folder)

    return {"endpoint": endpoint, "local": _local, "guard": guarded}


def make_target(suite: Suite, settings: Settings, *, registry: Registry) -> Target:
    """The target that a suite's file names.

    Raises:
        UsageError: when it names none.
    """
    from stanchion.core.errors import UsageError
    from stanchion.evals.target import build_target

    model = suite.file.target
    if model is None:
        raise UsageError(
            f"suite {suite.id!r} names no target.", hint="Add `target:` to the suite, or give --target."
        )
    folder = suite.path.parent
    factories = target_factories(settings, folder=folder)
    return build_target(model, folder=folder, detectors=registry.create, factories=factories)


def secrets_of(settings: Settings) -> Mapping[str, Any]:
    """The keys of model providers that the settings hold, by the name of their API."""
    return {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key}


def _endpoint(model: Any, settings: Settings, *, retries: bool) -> Target:
    from stanchion.models.endpoint import EndpointModel, EndpointOptions
    from stanchion.models.retry import RetryPolicy

    key = model.api_key or secrets_of(settings).get(model.api)
    options = EndpointOptions() if retries else EndpointOptions(retry=RetryPolicy(attempts=1))
    return EndpointModel(model.base_url, api=model.api, model=model.model, api_key=key, options=options)


def _local(model: Any) -> Target:
    from stanchion.models.local import LocalModel

    return LocalModel(Path(model.model) if model.model else None)


def _guarded(model: Any, settings: Settings, *, folder: Path) -> Target:
    from stanchion.evals.target import build_target

    registry = make_registry(settings)
    is_file = model.policy.endswith((".yaml", ".yml"))
    guard = make_guard(folder / model.policy if is_file else model.policy, settings)
    if model.around is None:
        from stanchion.evals.target import NoAnswer

        return guard.wrap(NoAnswer())
    factories = target_factories(settings, folder=folder)
    inner = build_target(model.around, folder=folder, detectors=registry.create, factories=factories)
    return guard.wrap(inner)
