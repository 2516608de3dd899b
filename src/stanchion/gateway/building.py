"""From a checked gateway file to the configuration that requests live under."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Reply, assistant, system, user
from stanchion.files.references import Secret
from stanchion.gateway.clouds import CloudUpstream, make_cloud
from stanchion.gateway.gateway_file import (
    FallbackModel,
    FeatureModel,
    GatewayModel,
    PriceModel,
    ProviderModel,
)
from stanchion.gateway.http_upstream import DIALECTS, HttpUpstream
from stanchion.gateway.live import Feature, variant_name
from stanchion.gateway.request_ids import RequestIds
from stanchion.gateway.upstream import (
    ClientUpstream,
    Fallback,
    Models,
    Provider,
    Route,
    Upstream,
    make_route,
)
from stanchion.guard.answers import GuardState
from stanchion.guard.made_detectors import make_detectors
from stanchion.guard.media_rules import MediaHandling, MediaRules
from stanchion.guard.packs import with_packs
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import LoadedPolicy, packaged_policy, read_policy
from stanchion.guard.policy_model import Guarantee, Policy
from stanchion.guard.seen_texts import DEFAULT_BYTES, SeenTexts
from stanchion.guard.tightening import loosenings
from stanchion.guard.vault import stretched_key
from stanchion.models.endpoint import Prices, SecretLike
from stanchion.models.http_client import HttpLimits

NO_POLICY = "none"
_MOST_SHOWN = 5
_MET = (
    "I can answer questions about your order. Card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, "
    "jane.doe@example.org, phone +1 415 555 2671 or 030 901820, SSN 078-05-1120, password: hunter2horse"
)
LocalModelFactory = Callable[[Path | None], Any]
Track = Callable[[Secret], SecretLike]


class GuardMaker:
    """Makes the guards of features; those whose policies come out the same share one.

    `seen_texts_bytes` bounds what each remembers of texts that it saw before.
    """

    def __init__(
        self, registry: Any, *, clock: Clock, ids: Ids, env: Mapping[str, str] | None = None
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._ids = RequestIds(ids)
        self._env = env
        self._made: dict[str, Guard] = {}
        self.seen_texts_bytes = DEFAULT_BYTES

    def make(self, name: str, feature: FeatureModel, *, folder: Path) -> Guard:
        """The guard of a feature; UNPROTECTED only where the file says `none`.

        Raises:
            FilesError: when the policy has problems.
            UsageError: when the feature is looser than its policy.
        """
        if feature.policy == NO_POLICY:
            return Guard(None, {}, clock=self._clock, ids=self._ids)  # says so in its state, and in the log
        read, base = self._read(feature.policy, folder)
        policy = with_packs(tightened(read.policy, feature, name), self._registry)
        key = "" if read.key is None else read.key.reveal()
        identity = f"{policy.digest} {self.seen_texts_bytes} {key}"
        if identity not in self._made:
            self._made[identity] = Guard(
                policy,
                make_detectors(policy, self._registry, folder=base),
                clock=self._clock,
                ids=self._ids,
                key=stretched_key(key) if key else None,
                seen_texts=SeenTexts(most_bytes=self.seen_texts_bytes),
            )
        return self._made[identity]

    def _read(self, named: str, folder: Path) -> tuple[LoadedPolicy, Path | None]:
        known = self._registry.ids()
        if not named.endswith((".yaml", ".yml")):
            policy = packaged_policy(named, detectors=known, clock=self._clock)
            return LoadedPolicy(policy=policy), None
        path = folder / named
        read = read_policy(path, env=self._env, detectors=known, clock=self._clock, registry=self._registry)
        return read, path.parent


def tightened(policy: Policy, feature: FeatureModel, name: str) -> Policy:
    """The policy with what the gateway file makes stricter.

    Raises:
        UsageError: when it would make it looser: that is the policy's to say, under its waivers.
    """
    if feature.media is not None:
        policy = msgspec.structs.replace(policy, media=MediaRules.every(MediaHandling.BLOCK))
    if feature.guarantee is not None:
        wanted, has = Guarantee(feature.guarantee), policy.streaming.guarantee
        if wanted.rank < has.rank:
            raise UsageError(
                f"feature {name!r}: {wanted.value!r} is a looser guarantee than its policy's {has.value!r}.",
                hint="Say it in the policy (streaming.guarantee), where it needs a waiver.",
            )
        streaming = msgspec.structs.replace(policy.streaming, guarantee=wanted)
        policy = msgspec.structs.replace(policy, streaming=streaming)
    return policy


def warm_up(guard: Guard) -> None:
    """Check something once, so that no request pays for tables that are built on first use.

    A card, an address, a phone and an account number are among it, in a question and in an answer: what tells
    where such a thing may begin takes half a second of CPU to make, in which nobody else would be answered.
    """
    asked = Interaction(messages=(system("You help."), user("Hello, what can you do for me?")))
    prepared = guard.prepare(asked)
    guard.finish(prepared, Reply(message=assistant(_MET)))
    guard.prepare(Interaction(messages=(user(_MET),)))


def make_feature(name: str, model: FeatureModel, guard: Guard) -> Feature:
    """A feature ready for requests."""
    policy = guard.policy
    is_watched_only = guard.state is not GuardState.PROTECTING or policy is None
    guarantee = Guarantee.AUDIT_ONLY if is_watched_only or policy is None else policy.streaming.guarantee
    return Feature(
        name=name,
        guard=guard,
        guarantee=guarantee.value,
        guard_state=guard.state.value,
        guard_version="" if policy is None else policy.digest,
        components=guard.components,
        deadline_s=model.deadline_s,
        max_body_bytes=model.max_body_bytes,
        approval_wait_s=model.approval_wait_s,
        notices=model.notices,
        on_route=None if model.route is None else _fallback(model.route),
        records_first=model.records == "first",
    )


def make_models(
    file: GatewayModel,
    *,
    folder: Path,
    clock: Clock,
    local_model: LocalModelFactory | None = None,
    track: Track | None = None,
) -> Models:
    """The models with their providers; connects to nothing yet. `track` renews secrets that may change.

    Raises:
        UsageError: for an address that is no URL, or a script that cannot be read.
    """
    providers = {
        name: _provider(name, model, folder=folder, clock=clock, local_model=local_model, track=track)
        for name, model in file.providers.items()
    }
    routes: dict[str, Route] = {}
    for name, model in file.models.items():
        fallback = tuple(_fallback(step) for step in model.fallback)
        prices = None if model.prices is None else _prices(model.prices)
        routes[name] = make_route(
            name, providers[model.provider], model.model or name, prices=prices, fallback=fallback
        )
    return Models(
        routes,
        providers=providers,
        pass_through={str(api): name for api, name in file.pass_through.items()},
    )


def _fallback(model: FallbackModel) -> Fallback:
    return Fallback(model=model.model or "", answer=model.answer or "", human=bool(model.human))


def make_variants(
    model: GatewayModel, features: Mapping[str, Feature], guard: Callable[[str, FeatureModel], Guard]
) -> dict[str, Feature]:
    """The features under the policies of the rollout's variants; see `live.Live.variants`.

    Raises:
        UsageError: when a variant that is shown is weaker than its feature's policy, and its experiment does
            not say `may_loosen`.
    """
    made: dict[str, Feature] = {}
    for experiment in () if model.rollout is None else model.rollout.experiments:
        for variant in experiment.variants:
            for name in (experiment.features or tuple(features)) if variant.policy else ():
                key = variant_name(name, variant.policy)
                if key not in made:
                    section = model.features[name].model_copy(update={"policy": variant.policy})
                    made[key] = make_feature(name, section, guard(name, section))
                if experiment.mode != "shadow":  # a shadow decides about nobody
                    weaker = weakenings(features[name].guard, made[key].guard)
                    if weaker and not experiment.may_loosen:
                        raise _weaker_error(f"{experiment.id}, variant {variant.id}", name, weaker)
                    made[key] = replace(made[key], weaker=weaker)
    return made


def make_flag_choices(
    model: GatewayModel, features: Mapping[str, Feature], guard: Callable[[str, FeatureModel], Guard]
) -> dict[str, Feature]:
    """The features under the policies that a flag may choose; see `live.Live.variants`.

    Raises:
        UsageError: when one is weaker than its feature's policy: a flag only tightens.
    """
    made: dict[str, Feature] = {}
    for name, policies in {} if model.flags is None else model.flags.choices("policy").items():
        for policy in policies:
            section = model.features[name].model_copy(update={"policy": policy})
            made[variant_name(name, policy)] = one = make_feature(name, section, guard(name, section))
            weaker = weakenings(features[name].guard, one.guard)
            if weaker:
                raise UsageError(
                    f"flags: feature.{name}.policy may choose {policy!r}, which is weaker than the feature's "
                    f"policy: {'; '.join(weaker[:_MOST_SHOWN])}.",
                    hint="A flag only tightens: name policies that extend the feature's.",
                )
    return made


def weakenings(before: Guard, after: Guard) -> tuple[str, ...]:
    """Every setting in which one guard is weaker than another, in words; empty where none is."""
    if before.policy is None:
        return ()
    if after.policy is None:
        return ("policy: none, nothing is checked",)
    return tuple(
        f"{'.'.join(one.path)}: {one.before} -> {one.after}"
        for one in loosenings(before.policy, after.policy)
    )


def _weaker_error(which: str, feature: str, weaker: tuple[str, ...]) -> UsageError:
    more = f" (and {len(weaker) - _MOST_SHOWN} more)" if len(weaker) > _MOST_SHOWN else ""
    return UsageError(
        f"rollout: experiment {which}: its policy is weaker than that of feature {feature!r}: "
        f"{'; '.join(weaker[:_MOST_SHOWN])}{more}.",
        hint="Use a policy that extends the feature's; or say `may_loosen: true` in the experiment.",
    )


def _provider(
    name: str,
    model: ProviderModel,
    *,
    folder: Path,
    clock: Clock,
    local_model: LocalModelFactory | None,
    track: Track | None,
) -> Provider:
    upstream: Upstream
    address = ""
    if model.api == "scripted":
        upstream, vendor = ClientUpstream(_scripted(folder / (model.script or ""), name)), "scripted"
    elif model.api == "local":
        if local_model is None:
            raise UsageError(f"provider {name!r}: no local model can be made here.")
        path = None if model.weights is None else folder / model.weights
        upstream, vendor = ClientUpstream(local_model(path)), "local"
    elif model.cloud is not None and model.key is not None:
        limits = HttpLimits(connect_s=model.connect_s, max_connections=model.max_connections)
        upstream, vendor = (
            make_cloud(model.cloud, name=name, key=_live(model.key, track), clock=clock, limits=limits),
            model.api,
        )
    else:
        asked = _http(name, model, clock, track)
        upstream, vendor, address = asked, model.api, asked.address
    return Provider(
        name=name,
        vendor=vendor,
        upstream=upstream,
        prices={each: _prices(prices) for each, prices in model.prices.items()},
        timeout_s=model.timeout_s,
        takes_keys=model.api in DIALECTS and model.key is None,
        apis=_apis(model.api, upstream),
        allow_parameters=frozenset(model.allow_parameters),
        unknown_parameters=model.unknown_parameters,
        address=address,
        allow_tools=frozenset(model.allow_tools),
        allow_betas=frozenset(model.allow_betas),
        allow_versions=frozenset(model.allow_versions),
        unknown_betas=model.unknown_betas,
    )


def _apis(api: str, upstream: Upstream) -> frozenset[str]:
    """The APIs that a provider speaks itself."""
    if isinstance(upstream, CloudUpstream):
        return frozenset({upstream.api})
    return frozenset(DIALECTS[api].paths) if api in DIALECTS else frozenset()


def _live(key: Secret, track: Track | None) -> SecretLike:
    return key if track is None else track(key)


def _http(name: str, model: ProviderModel, clock: Clock, track: Track | None) -> HttpUpstream:
    key = _live(model.key, track) if model.key else None
    return HttpUpstream(
        model.base_url,
        dialect=DIALECTS[model.api],
        clock=clock,
        name=name,
        key=key,
        connect_s=model.connect_s,
        idle_s=model.idle_s,
        max_connections=model.max_connections,
        gather_s=model.gather_ms / 1000,
    )


def _scripted(path: Path, name: str) -> Any:
    import yaml

    from stanchion.files.document import attempt_document
    from stanchion.models.script import read_script
    from stanchion.models.scripted import ScriptedModel

    document, problems = attempt_document(path)
    if document is None:
        raise UsageError(f"provider {name!r}: {problems[0].render()}")
    script = yaml.safe_load(path.read_text("utf-8"))
    return ScriptedModel(read_script(script, where=str(path)))


def _prices(model: PriceModel) -> Prices:
    return Prices(
        input_usd=model.input_usd, output_usd=model.output_usd, cached_input_usd=model.cached_input_usd
    )
