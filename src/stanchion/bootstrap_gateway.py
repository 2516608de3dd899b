"""Where the gateway is plugged together: settings and `gateway.yaml` in, an application out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanchion.bootstrap_records import open_records
from stanchion.bootstrap_secrets import id_keys_of, sealing_key
from stanchion.core.clock import Clock, SortableIds, SystemClock
from stanchion.core.errors import StanchionError

if TYPE_CHECKING:
    from stanchion.bootstrap_control import ReplicaPlane
    from stanchion.config import Settings
    from stanchion.gateway.access import KeyAccess, RequiredKeys
    from stanchion.gateway.app import Gateway
    from stanchion.gateway.flag_steering import FlagSteering
    from stanchion.gateway.gateway_file import FeatureModel, GatewayModel
    from stanchion.gateway.gauges import Gauges
    from stanchion.gateway.live import Feature, Live, Parts
    from stanchion.gateway.observed import MetricsObserver, TracingObserver
    from stanchion.gateway.ports import Observer
    from stanchion.gateway.record import Recorder
    from stanchion.gateway.reloading import Reloaded
    from stanchion.gateway.upstream_secrets import UpstreamSecrets
    from stanchion.guard.pipeline import Guard
    from stanchion.store.database import Database
    from stanchion.store.identity import IdKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySources:
    """What a gateway is made from, and made from again at a reload.

    `file` is the gateway file; None: the defaults. `policy` and `listen` go before what the file says.
    `metrics_folder` is where workers share their counts, `group` what the workers of one gateway are known
    by, and `workers` how many there are. `is_demo` puts a script in the place of models.
    """

    settings: Settings
    file: Path | None = None
    policy: str = ""
    listen: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    metrics_folder: Path | None = None
    is_demo: bool = False
    group: str = ""
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayProcess:
    """One process's gateway with what has to be closed at its end."""

    gateway: Gateway
    recorder: Recorder
    database: Database
    behind: Database  # the same, for the writer of records that nobody waits for
    replica: ReplicaPlane
    address: str
    admin_address: str
    sources: GatewaySources
    maker: LiveMaker
    metrics: MetricsObserver
    gauges: Gauges
    tracing: TracingObserver | None

    @property
    def group(self) -> str:
        """What the workers of this gateway are known by; a process alone is known by its own id."""
        return self.sources.group or self.replica.watch.replica.id

    def tell(self, live: Live, tried_at_us: int, trouble: str = "") -> None:
        """Say to other processes what this one serves, and why the last try to read the files failed."""
        from stanchion.gateway.known_targets import about

        said = about(live, group=self.group, tried_at_us=tried_at_us, trouble=trouble)
        self.replica.watch.tell(said)

    def admin_app(self, reload: Callable[[], Reloaded]) -> Any:
        """The admin API of this process."""
        from stanchion.bootstrap import make_ticket_views
        from stanchion.bootstrap_control import make_admin_api, make_admin_plane

        settings = self.sources.settings
        plane = make_admin_plane(settings, reader=self.replica.reader, database=self.database)
        approvals: Any = self.gateway.live.parts.approvals
        views = None if approvals is None else make_ticket_views(settings, approvals, plane.database)
        return make_admin_api(settings, plane, self.replica, approvals=approvals, views=views, reload=reload)

    def build(self) -> Live:
        """The configuration made anew from its sources."""
        return self.maker.make()

    def close(self) -> None:
        """Write what is left of the records, and let go of the database."""
        self.replica.watch.stop()
        self.maker.secrets.stop()
        self.recorder.close()
        self.behind.close()
        self.database.close()
        if self.tracing is not None:
            self.tracing.close()


class LiveMaker:
    """Makes configurations from the same sources; guards whose policies did not change are kept."""

    def __init__(
        self,
        sources: GatewaySources,
        *,
        clock: Clock,
        id_keys: IdKeys,
        recorder: Recorder,
        observers: tuple[Observer, ...],
        database: Database,
        replica: ReplicaPlane,
        secrets: UpstreamSecrets,
        began: GatewayModel,
    ) -> None:
        from stanchion.bootstrap import make_registry
        from stanchion.gateway.building import GuardMaker
        from stanchion.gateway.penalties import BlockList

        self._sources = sources
        self._began = began
        self._clock = clock
        self._ids = SortableIds(clock)
        self._id_keys = id_keys
        self._recorder = recorder
        self._observers = observers
        self._database = database
        self._blocks = BlockList(database, clock=clock)
        with suppress(StanchionError):  # read every second from now on
            self._blocks.load()
        self._replica = replica
        self.secrets = secrets
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._scrub: Callable[[str], str] | None = None
        self._guards = GuardMaker(
            make_registry(sources.settings), clock=clock, ids=self._ids, env=sources.env
        )

    def make(self) -> Live:
        """A configuration.

        Raises:
            FilesError: with every problem of the files.
            UsageError: when they cannot be used together.
        """
        from stanchion.core.codec import digest
        from stanchion.gateway.building import make_feature, make_models, warm_up
        from stanchion.gateway.gateway_file import is_loopback, split_address
        from stanchion.gateway.live import Live
        from stanchion.gateway.reloading import needs_restart
        from stanchion.gateway.serving import check_reach

        model, folder, file_digest = gateway_model(self._sources)
        address = self._sources.listen or self._began.listen  # a reload moves no socket
        check_reach(address, needs_keys=self._access(model).needs_keys)
        self._guards.seen_texts_bytes = model.seen_texts_bytes
        guards = {
            name: self._guards.make(name, feature, folder=folder) for name, feature in model.features.items()
        }
        for guard in guards.values():
            warm_up(guard)
        features = {name: make_feature(name, model.features[name], guard) for name, guard in guards.items()}
        variants = self._variants(model, features, folder)
        return Live(
            needs_restart=needs_restart(
                self._began, model, without=("listen",) if self._sources.listen else ()
            ),
            environment=model.environment or self._sources.settings.environment,
            features=features,
            variants=variants,
            default_feature=model.main_feature,
            models=make_models(
                model,
                folder=folder,
                clock=self._clock,
                local_model=_local_model,
                track=self.secrets.track,
            ),
            clock=self._clock,
            ids=self._ids,
            id_keys=self._id_keys,
            parts=self._parts(model, folder),
            observers=self._observers,
            recorder=self._recorder,
            is_local=is_loopback(split_address(address)[0]),
            body_timeout_s=model.body_timeout_s,
            metrics=model.telemetry.metrics,
            trace_share=_trace_share(self._sources, model),
            digest=digest(
                [file_digest, *(one.guard_version for one in (*features.values(), *variants.values()))]
            ),
        )

    def _variants(
        self, model: GatewayModel, features: Mapping[str, Feature], folder: Path
    ) -> dict[str, Feature]:
        from stanchion.gateway.building import make_flag_choices, make_variants, warm_up

        def guard(name: str, section: FeatureModel) -> Guard:
            return self._guards.make(name, section, folder=folder)

        found = {**make_variants(model, features, guard), **make_flag_choices(model, features, guard)}
        for variant in found.values():
            warm_up(variant.guard)
        return found

    def _access(self, model: GatewayModel) -> KeyAccess | RequiredKeys:
        from stanchion.gateway.access import RequiredKeys

        access = self._replica.access
        return RequiredKeys(access) if model.access.keys == "required" else access

    def _parts(self, model: GatewayModel, folder: Path) -> Parts:
        """The parts of a configuration; one whose section did not change is kept, with what it counted."""
        from stanchion.bootstrap_control import make_admission
        from stanchion.bootstrap_flags import with_flags
        from stanchion.gateway.breaker import make_breaker
        from stanchion.gateway.live import Parts
        from stanchion.gateway.session_calls import kept_calls

        clock, flags = self._clock, self._flags(model, folder)
        ungated = flags.ungated if flags is not None and flags.ungated_is_steered else None
        return Parts(
            flags=flags,
            calls=kept_calls(self._kept, model.limits, self._sources.settings.redis_url, clock=clock),
            access=self._access(model),
            switches=with_flags(self._replica.switches, flags),
            admission=make_admission(
                self._sources.settings,
                self._replica.admission,
                at_least=model.admission.at_least,
                flag=ungated,
            ),
            limits=self._kept_or("limits", model.limits, self._limits),
            blocks=self._blocks,
            breaker=self._kept_or("breaker", model.breaker, lambda one: make_breaker(one, clock=clock)),
            rollout=self._kept_or("rollout", model.rollout, self._rollout),
            prompts=self._prompts(model),
            approvals=self._kept_or("approvals", model.approvals, self._approvals),
            feedback=self._kept_or("feedback", model.feedback, self._feedback),
        )

    def _kept_or(self, name: str, section: Any, make: Callable[[Any], Any]) -> Any:
        if section is None:
            return None
        before, part = self._kept.get(name, (None, None))
        if part is None or before != section:
            part = make(section)
            self._kept[name] = (section, part)
        return part

    def _flags(self, model: GatewayModel, folder: Path) -> FlagSteering | None:
        """The flags; those of a section that changed or went away are read no more."""
        from stanchion.bootstrap_flags import make_flags

        before, old = self._kept.get("flags", (None, None))
        if model.flags == before:
            return old  # type: ignore[no-any-return]
        made = None if model.flags is None else make_flags(model.flags, folder=folder)
        self._kept["flags"] = (model.flags, made)
        if old is not None:
            old.flags.stop()
        return made

    def _limits(self, section: Any) -> Any:
        from stanchion.gateway.budgets import Budgets
        from stanchion.gateway.limits import make_limits

        return make_limits(
            section,
            clock=self._clock,
            ids=self._ids,
            budgets=Budgets(self._database, clock=self._clock, ids=self._ids),
            blocks=self._blocks,
        )

    def _rollout(self, section: Any) -> Any:
        from stanchion.gateway.rollout import make_rollout
        from stanchion.gateway.rollout_store import RolloutStore

        return make_rollout(section, store=RolloutStore(self._database, clock=self._clock))

    def _prompts(self, model: GatewayModel) -> Any:
        from stanchion.bootstrap_control import trusted_of
        from stanchion.gateway.prompts_disk import PromptDisk
        from stanchion.gateway.prompts_registry import PromptStore, make_prompts

        if model.prompts is None:
            return None
        settings, store = self._sources.settings, PromptStore(self._database, clock=self._clock)
        kept = PromptDisk(settings.state_dir, source=self._database.where)
        return make_prompts(model.prompts, store, keys=trusted_of(settings), kept=kept)

    def _feedback(self, section: Any) -> Any:
        from stanchion.gateway.feedback import make_feedback

        return make_feedback(
            section,
            self._database,
            clock=self._clock,
            ids=self._ids,
            redact=self._scrubbed,
            on_bad=self._observe_feedback,
        )

    def _scrubbed(self, comment: str) -> str:
        from stanchion.bootstrap import make_scrub

        if self._scrub is None:  # on the first comment: most gateways never see one
            self._scrub = make_scrub(self._sources.settings)
        return self._scrub(comment)

    def _observe_feedback(self, variants: Mapping[str, str]) -> None:
        _, rollout = self._kept.get("rollout", (None, None))
        if rollout is not None:
            rollout.observe_feedback(variants)

    def _approvals(self, section: Any) -> Any:
        from stanchion.gateway.approvals import ApprovalQueue

        return ApprovalQueue(
            section,
            self._database,
            clock=self._clock,
            ids=self._ids,
            key=sealing_key(self._sources.settings),
            id_keys=self._id_keys,
        )


def _trace_share(sources: GatewaySources, model: GatewayModel) -> float | None:
    """The share of new traces that is sampled; None where no spans are sent."""
    is_sent = model.telemetry.otlp_endpoint or sources.settings.otlp_endpoint
    return model.telemetry.sampled if is_sent else None


def gateway_model(sources: GatewaySources) -> tuple[GatewayModel, Path, str]:
    """The gateway file (or the defaults) with what goes before it, its folder, and its digest."""
    from importlib import resources

    from stanchion.core.codec import digest_text
    from stanchion.core.resources import data_path
    from stanchion.gateway.gateway_file import (
        DEFAULT_FEATURE,
        FeatureModel,
        default_gateway,
        demo_gateway,
        read_gateway_file,
    )

    settings = sources.settings
    if sources.is_demo:
        with resources.as_file(data_path("demo_model.yaml")) as script:
            model = demo_gateway(script, policy=str(sources.policy or settings.policy))
        return model, Path(), digest_text("demo")
    if sources.file is None:
        model = default_gateway(
            openai=(settings.openai_base_url, settings.openai_api_key),
            anthropic=(settings.anthropic_base_url, settings.anthropic_api_key),
            policy=str(sources.policy or settings.policy),
        )
        return model, Path(), digest_text("defaults")
    loaded = read_gateway_file(sources.file, env=sources.env)
    model = loaded.value
    if sources.policy:
        name = model.main_feature
        feature = model.features.get(name, FeatureModel()).model_copy(update={"policy": sources.policy})
        model = model.model_copy(update={"features": {**model.features, name or DEFAULT_FEATURE: feature}})
    return model, sources.file.parent, loaded.digest


def make_gateway(
    sources: GatewaySources,
    *,
    observers: tuple[Observer, ...] = (),
    clock: Clock | None = None,
    worker: int = 0,
) -> GatewayProcess:
    """A gateway that is ready for requests, with its records open.

    Raises:
        FilesError, UsageError: for files that cannot be used.
        UnavailableError: when the records cannot be opened, and no state on disk says what to obey meanwhile.
    """
    from stanchion.bootstrap_control import make_replica_plane, make_upstream_secrets
    from stanchion.gateway.gateway_file import is_loopback, split_address
    from stanchion.store.times import to_us

    settings, clock = sources.settings, clock or SystemClock()
    model, _, _ = gateway_model(sources)
    metrics, tracing = _telemetry(sources, model, worker=worker)
    address = sources.listen or model.listen
    with ExitStack() as undo:
        database, behind, recorder = open_records(settings, model, undo, worker=worker, clock=clock)
        is_local = is_loopback(split_address(address)[0])
        replica = make_replica_plane(settings, is_loopback=is_local, clock=clock)
        replica.watch.start()
        undo.callback(replica.watch.stop)
        maker = LiveMaker(
            sources,
            clock=clock,
            id_keys=id_keys_of(settings),
            recorder=recorder,
            observers=(*observers, metrics, *(() if tracing is None else (tracing,))),
            database=database,
            replica=replica,
            secrets=make_upstream_secrets(settings, renew_s=model.secrets_renew_s),
            began=model,
        )
        began_us = to_us(clock.now())
        gateway = _application(maker.make())
        undo.pop_all()
    recorder.start()
    maker.secrets.start()
    process = GatewayProcess(
        gateway=gateway,
        recorder=recorder,
        database=database,
        behind=behind,
        replica=replica,
        address=address,
        admin_address=model.admin_listen if worker == 0 else "",
        sources=sources,
        maker=maker,
        metrics=metrics,
        gauges=_shown(gateway, recorder, replica, metrics, clock=clock),
        tracing=tracing,
    )
    process.tell(gateway.live, began_us)
    return process


def _shown(
    gateway: Gateway, recorder: Recorder, replica: ReplicaPlane, metrics: MetricsObserver, *, clock: Clock
) -> Gauges:
    """The pages of the gateway, and what its parts say of themselves there."""
    from stanchion.gateway.gauges import make_gauges
    from stanchion.gateway.pages import make_pages

    gauges = metrics.gauges = make_gauges(gateway, recorder, replica.reader, replica.switches, clock=clock)
    gateway.pages.update(
        make_pages(gateway, recorder, metrics=metrics.exposition, troubles=replica.watch.troubles)
    )
    return gauges


def _application(live: Live) -> Gateway:
    from stanchion.gateway.app import Gateway
    from stanchion.gateway.paths import served_paths
    from stanchion.models.surfaces import SURFACES

    return Gateway(live, served_paths(SURFACES))


def _telemetry(
    sources: GatewaySources, model: GatewayModel, *, worker: int
) -> tuple[MetricsObserver, TracingObserver | None]:
    """What counts, and what makes the spans where somebody takes them."""
    from stanchion.gateway.observed import MetricsObserver
    from stanchion.gateway.telemetry_file import make_tracing
    from stanchion.telemetry.metrics import Metrics

    settings = sources.settings
    metrics = MetricsObserver(Metrics(sources.metrics_folder, worker=worker))
    tracing = make_tracing(model.telemetry, endpoint=settings.otlp_endpoint, opt_in=settings.semconv_opt_in)
    return metrics, tracing


def _local_model(path: Path | None) -> Any:
    from stanchion.models.local import LocalModel

    return LocalModel(path)
