"""The one place where real objects are plugged together: settings in; guards, models and targets out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from stanchion.config import Settings
    from stanchion.core.target import Target
    from stanchion.detectors.moderation import ServiceFactory
    from stanchion.detectors.packs import PackStore
    from stanchion.detectors.registry import Registry
    from stanchion.evals.cache import AnswerCache
    from stanchion.evals.scorers.build import ModelFactory
    from stanchion.evals.target import TargetFactory
    from stanchion.evals.target_file import (
        AnyTargetModel,
        EndpointTargetModel,
        GuardTargetModel,
        LocalTargetModel,
    )
    from stanchion.gateway.approval_views import TicketViews
    from stanchion.gateway.approvals import ApprovalQueue
    from stanchion.guard.pipeline import Guard
    from stanchion.store.database import Database

WITHHELD = "[withheld]"
ANSWERS_FILE = "answers.sqlite"


def make_registry(settings: Settings) -> Registry:
    """The packaged and installed detectors; their automaton is cached where the settings say."""
    from stanchion.detectors.packaged import packaged_catalogues
    from stanchion.detectors.registry import Registry
    from stanchion.detectors.scan import Scanner

    folder = settings.cache_dir
    scanner = Scanner(packaged_catalogues(cache_dir=folder), cache_dir=folder)
    packs = make_pack_store(settings) if settings.packs_keys is not None else None
    return Registry(scanner, models=judge_factory(settings), services=service_factory(settings), packs=packs)


def make_pack_store(settings: Settings) -> PackStore:
    """The installed content packs.

    Raises:
        UsageError: when no key is named whose packs are used.
    """
    from stanchion.core.errors import UsageError
    from stanchion.detectors.packs import PackStore
    from stanchion.files.keys import load_trusted_keys

    if settings.packs_keys is None:
        raise UsageError("no key is named whose packs are used.", hint="Set `packs_keys`.")
    keys = load_trusted_keys(settings.packs_keys)
    return PackStore(settings.packs_dir, keys, cache_dir=settings.cache_dir)


def make_guard(
    policy: Path | str,
    settings: Settings,
    *,
    registry: Registry | None = None,
    clock: Clock | None = None,
) -> Guard:
    """A guard by policy file or packaged name; its detectors come from the registry."""
    from stanchion.guard.pipeline import Guard

    return Guard.load(policy, registry=registry or make_registry(settings), clock=clock)


def make_scrub(settings: Settings, *, registry: Registry | None = None) -> Callable[[str], str]:
    """What takes personal data and secrets out of words that are to be stored.

    A text in which a check could not run is withheld whole.
    """
    guard = make_guard("scrub", settings, registry=registry)

    def scrub(text: str) -> str:
        checked = guard.check(text, surface="output")
        return checked.text if checked.allowed else WITHHELD

    return scrub


def make_ticket_views(settings: Settings, queue: ApprovalQueue, database: Database) -> TicketViews:
    """How people look at what is parked: masked as the packaged policy `scrub` says."""
    from stanchion.gateway.approval_views import TicketViews
    from stanchion.guard.masked_view import Masker

    return TicketViews(
        queue, database, clock=SystemClock(), masker=lambda: Masker(make_guard("scrub", settings))
    )


def make_answer_cache(
    settings: Settings, *, fresh: bool = False, path: Path | None = None, clock: Clock | None = None
) -> AnswerCache:
    """The sealed answers of earlier runs; `fresh` asks the model again and writes anew."""
    from stanchion.evals.cache import AnswerCache

    where = path or settings.cache_dir / ANSWERS_FILE
    return AnswerCache(where, clock=clock or SystemClock(), fresh=fresh)


def make_target(
    model: AnyTargetModel,
    settings: Settings,
    *,
    folder: Path,
    registry: Registry,
    answers: AnswerCache | None = None,
) -> Target:
    """What a suite is run against; it asks once, because a run asks again itself.

    Args:
        model: as the suite or the command line has it.
        settings: keys, base URLs and the cache folder.
        folder: where its paths start.
        registry: makes the detectors, a guard's included.
        answers: where a model's answers are kept, under a guard too.

    Raises:
        UsageError: when it cannot be made.
        FilesError: for a policy with problems.
    """
    from stanchion.evals.target import NoAnswer, build_target

    factories = _model_factories(settings, retries=False, answers=answers)

    def guarded(model: GuardTargetModel) -> Target:
        is_file = model.policy.endswith((".yaml", ".yml"))
        guard = make_guard(folder / model.policy if is_file else model.policy, settings, registry=registry)
        return guard.wrap(NoAnswer() if model.around is None else build(model.around))

    def build(model: AnyTargetModel) -> Target:
        made = {**factories, "guard": guarded}
        return build_target(model, folder=folder, detectors=registry.create, factories=made)

    return build(model)


def service_factory(settings: Settings) -> ServiceFactory:
    """What gives address and key of a provider's moderation service, by the detector's id."""
    from stanchion.core.errors import UsageError
    from stanchion.detectors.moderation import AZURE, Service

    def service(detector_id: str) -> Service:
        if detector_id != AZURE:
            return Service(settings.openai_base_url, settings.openai_api_key)
        if not settings.azure_content_safety_endpoint:
            raise UsageError(
                f"detector {detector_id!r} has no address.", hint="Set `azure_content_safety_endpoint`."
            )
        return Service(settings.azure_content_safety_endpoint, settings.azure_content_safety_key)

    return service


def judge_factory(settings: Settings) -> ModelFactory:
    """What makes a judge by its name.

    `local` is the packaged model; `openai/NAME` and `anthropic/NAME` stand behind the endpoint that the
    settings name, and any other name is taken for OpenAI's. A judge that fails is asked again.
    """
    from stanchion.evals.target_file import EndpointTargetModel, LocalTargetModel

    factories = _model_factories(settings)

    def judge(name: str) -> Target:
        api, _, model = name.partition("/")
        match api:
            case "local" if not model:
                return factories["local"](LocalTargetModel(kind="local"))
            case "anthropic" if model:
                base_url = settings.anthropic_base_url
                return factories["endpoint"](
                    EndpointTargetModel(kind="endpoint", api="anthropic", base_url=base_url, model=model)
                )
            case "openai" if model:
                name = model
        base_url = settings.openai_base_url
        return factories["endpoint"](EndpointTargetModel(kind="endpoint", base_url=base_url, model=name))

    return judge


def _model_factories(
    settings: Settings, *, retries: bool = True, answers: AnswerCache | None = None
) -> dict[str, TargetFactory]:
    """The models that evals cannot make by themselves.

    `retries` False is for a caller that asks again itself, such as a run: two who retry multiply.
    """

    def endpoint(model: EndpointTargetModel) -> Target:
        return _cached(_endpoint(model, settings, retries=retries), answers)

    def local(model: LocalTargetModel) -> Target:
        from stanchion.models.local import LocalModel

        return _cached(LocalModel(Path(model.model) if model.model else None), answers)

    return {"endpoint": endpoint, "local": local}


def _cached(target: Target, answers: AnswerCache | None) -> Target:
    from stanchion.evals.cache import CachedTarget

    return target if answers is None else CachedTarget(target, answers)


def _endpoint(model: EndpointTargetModel, settings: Settings, *, retries: bool) -> Target:
    from stanchion.models.endpoint import EndpointModel, EndpointOptions
    from stanchion.models.retry import RetryPolicy

    keys = {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key}
    options = EndpointOptions() if retries else EndpointOptions(retry=RetryPolicy(attempts=1))
    key = model.api_key or keys[model.api]
    return EndpointModel(model.base_url, api=model.api, model=model.model, api_key=key, options=options)
