"""`gateway.yaml`: where the gateway listens, whom it asks, what each feature is held to.

Sections of other parts are models of their own modules, composed here. Without a file the defaults at the end
hold: both vendors as the settings say, the default policy, loopback only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from stanchion.core.errors import UsageError, did_you_mean
from stanchion.files.references import Secret
from stanchion.files.schema import FieldError, FileModel, Loaded, load_file
from stanchion.gateway.access import AccessSection
from stanchion.gateway.admission import AdmissionSection
from stanchion.gateway.approvals import ApprovalsSection
from stanchion.gateway.breaker import BreakerSection
from stanchion.gateway.clouds import AzureSection, BedrockSection, CloudSection, VertexSection
from stanchion.gateway.feedback import FeedbackSection
from stanchion.gateway.flags_file import FlagsSection
from stanchion.gateway.limits_file import LimitsSection
from stanchion.gateway.notices_file import NoticesModel
from stanchion.gateway.prompts_registry import PromptsSection
from stanchion.gateway.rollout_file import RolloutSection
from stanchion.gateway.telemetry_file import TelemetrySection
from stanchion.guard.seen_texts import DEFAULT_BYTES
from stanchion.models.http_client import checked_url

DEFAULT_LISTEN = "127.0.0.1:8700"
DEFAULT_FEATURE = "default"
DEMO = "demo"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")
_PARAMETER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})\Z")

Seconds = Annotated[float, pydantic.Field(gt=0, le=86_400)]
Dollars = Annotated[float, pydantic.Field(ge=0)]
Api = Literal["openai", "anthropic", "azure", "bedrock", "vertex", "scripted", "local"]


def _named(values: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    for name in values:
        if not _NAME.match(name):
            raise FieldError(
                f"{name!r} is no name of a {what}.",
                hint="Use small letters, digits and _ . - ; begin with a letter or digit.",
            )
    return values


class PriceModel(FileModel):
    """US dollars per million tokens."""

    input_usd: Dollars = pydantic.Field(description="A million input tokens, in US dollars.")
    output_usd: Dollars = pydantic.Field(description="A million output tokens, in US dollars.")
    cached_input_usd: Dollars | None = pydantic.Field(
        default=None, description="A million cached input tokens; default: as other input."
    )


class ProviderModel(FileModel):
    """One provider."""

    api: Api = pydantic.Field(description="Which API it speaks; `scripted` and `local` run in the process.")
    base_url: str = pydantic.Field(
        default="", description="The API's base, such as `https://api.openai.com/v1`."
    )
    key: Secret | None = pydantic.Field(
        default=None,
        description="Its API key: `${env:NAME}`, `${file:path}` or `${vault:MOUNT/PATH#FIELD}`. "
        "Without it a client's own may be forwarded; empty: none is sent.",
    )
    azure: AzureSection | None = pydantic.Field(
        default=None, description="The resource of an `azure` provider."
    )
    bedrock: BedrockSection | None = pydantic.Field(
        default=None, description="The region of a `bedrock` provider."
    )
    vertex: VertexSection | None = pydantic.Field(
        default=None, description="The project of a `vertex` provider."
    )
    script: Path | None = pydantic.Field(default=None, description="The script of a `scripted` provider.")
    weights: Path | None = pydantic.Field(default=None, description="A GGUF file for a `local` provider.")
    timeout_s: Seconds = pydantic.Field(
        default=600.0,
        description="How long a whole answer may take; for a stream, `deadline_s` of the feature holds.",
    )
    idle_s: Seconds = pydantic.Field(default=60.0, description="How long it may say nothing.")
    connect_s: Seconds = pydantic.Field(default=5.0, description="How long a connection may take.")
    max_connections: int = pydantic.Field(
        default=1000, ge=1, le=100_000, description="Connections at a time."
    )
    gather_ms: float = pydantic.Field(
        default=20.0,
        ge=0,
        le=1000,
        description="Once a stream has begun, how long its pieces are gathered, to be looked at and sent "
        "together; 0: each is sent when it comes.",
    )
    prices: dict[str, PriceModel] = pydantic.Field(
        default={}, description="Prices by the provider's model name."
    )
    allow_parameters: tuple[str, ...] = pydantic.Field(
        default=(),
        max_length=100,
        description="Parameters of requests that pass although they steer, or are not known.",
    )
    unknown_parameters: Literal["block", "drop", "pass"] = pydantic.Field(
        default="block",
        description="What becomes of parameters that the API's documentation does not name.",
    )
    allow_tools: tuple[str, ...] = pydantic.Field(
        default=(), max_length=100, description="Types of tools that the provider runs itself and that pass."
    )
    allow_betas: tuple[str, ...] = pydantic.Field(
        default=(), max_length=100, description="Anthropic betas that pass beside those known to be harmless."
    )
    allow_versions: tuple[str, ...] = pydantic.Field(
        default=(), max_length=20, description="Versions of Anthropic's API that pass beside those known."
    )
    unknown_betas: Literal["block", "drop"] = pydantic.Field(
        default="block", description="What becomes of a beta that is in neither list."
    )

    @property
    def cloud(self) -> CloudSection | None:
        """The section of the cloud that the provider is, if it is one."""
        sections: dict[str, CloudSection | None]
        sections = {"azure": self.azure, "bedrock": self.bedrock, "vertex": self.vertex}
        return sections.get(self.api)

    @pydantic.field_validator("base_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value:
            try:
                checked_url(value, what="base_url")
            except UsageError as error:
                raise FieldError(error.message, hint=error.hint) from error
        return value

    @pydantic.model_validator(mode="after")
    def _is_complete(self) -> ProviderModel:
        if self.api in ("openai", "anthropic") and not self.base_url:
            raise FieldError("base_url is missing.", hint="For example https://api.openai.com/v1")
        if self.api in ("azure", "bedrock", "vertex") and (self.cloud is None or not self.key):
            what = "key" if self.cloud is not None else self.api
            raise FieldError(f"{what} is missing.", hint=f"An `{self.api}` provider needs it.")
        if self.api == "scripted" and self.script is None:
            raise FieldError("script is missing.", hint="Name the file with the replies.")
        for key, api in (("script", "scripted"), ("weights", "local")):
            if getattr(self, key) is not None and self.api != api:
                raise FieldError(f"{key} is of a `{api}` provider only.", at=(key,))
        for key in ("allow_parameters", "allow_tools", "allow_betas", "allow_versions"):
            if not all(_PARAMETER.match(name) for name in getattr(self, key)):
                raise FieldError(f"{key} holds what is no name.")
        return self


class FallbackModel(FileModel):
    """One step of a fallback chain: exactly one of the three."""

    model: str | None = pydantic.Field(default=None, description="Another model of this file.")
    answer: str | None = pydantic.Field(default=None, description="A canned answer.", max_length=4000)
    human: bool | None = pydantic.Field(default=None, description="Put the request in the queue of people.")

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> FallbackModel:
        if sum(value is not None for value in (self.model, self.answer, self.human)) != 1:
            raise FieldError("a fallback is one of model, answer, human.")
        if self.human is False:
            raise FieldError("human: false is no step.", hint="Write human: true, or leave the step out.")
        return self


class ModelModel(FileModel):
    """A model as clients name it."""

    provider: str = pydantic.Field(description="The provider's name in this file.")
    model: str = pydantic.Field(default="", description="Its name there; default: the same.")
    prices: PriceModel | None = pydantic.Field(
        default=None, description="Prices, where the provider's do not hold."
    )
    fallback: tuple[FallbackModel, ...] = pydantic.Field(
        default=(), description="What is done, in order, when it does not answer."
    )


class FeatureModel(FileModel):
    """What the requests of one feature are held to."""

    policy: str = pydantic.Field(
        default="default", description="A packaged policy's name, a file's path, or `none`: UNPROTECTED."
    )
    guarantee: Literal["no-leak", "bounded", "audit-only"] | None = pydantic.Field(
        default=None, description="The guarantee of streams, where it is to be stricter than the policy's."
    )
    media: Literal["block"] | None = pydantic.Field(
        default=None, description="`block`: no image, sound or file, whatever the policy says."
    )
    deadline_s: Seconds = pydantic.Field(default=600.0, description="How long a request may take in all.")
    max_body_bytes: int = pydantic.Field(
        default=8 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="The largest body."
    )
    route: FallbackModel | None = pydantic.Field(
        default=None,
        description="What a rule's effect `route` does; default: the policy's words, handing over.",
    )
    notices: NoticesModel | None = pydantic.Field(
        default=None, description="What is added to answers: AI disclosure, sources, uncertainty."
    )
    approval_wait_s: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=3600,
        description="How long a client waits for a person before it is told to come back.",
    )
    records: Literal["behind", "first"] = pydantic.Field(
        default="behind", description="`first`: the record is on disk before the end of the answer leaves."
    )


class RecordsModel(FileModel):
    """How records are written."""

    batch: int = pydantic.Field(
        default=1000, ge=1, le=10_000, description="The most records of one transaction."
    )
    every_s: Seconds = pydantic.Field(default=0.5, description="How often they are written.")
    most_waiting: int = pydantic.Field(
        default=20_000, ge=100, le=1_000_000, description="The most that wait in memory; the bound on loss."
    )


class GatewayModel(FileModel):
    """The whole file."""

    listen: str = pydantic.Field(default=DEFAULT_LISTEN, description="Address of the data plane.")
    environment: Literal["dev", "staging", "prod"] | None = pydantic.Field(
        default=None, description="What records are marked with; default: the setting `environment`."
    )
    providers: dict[str, ProviderModel] = pydantic.Field(description="Providers by name.")
    models: dict[str, ModelModel] = pydantic.Field(
        default={}, description="Models by the name that clients use."
    )
    pass_through: dict[Literal["openai", "anthropic"], str] = pydantic.Field(
        default={}, description="By API: the provider that gets models which this file does not name."
    )
    features: dict[str, FeatureModel] = pydantic.Field(
        default={DEFAULT_FEATURE: FeatureModel()}, description="Features by name."
    )
    default_feature: str = pydantic.Field(
        default="", description="The feature of requests that name none; default: the only one, or `default`."
    )
    body_timeout_s: Seconds = pydantic.Field(default=15.0, description="How long a body may take to come.")
    limits: LimitsSection | None = pydantic.Field(
        default=None, description="Requests, concurrency, tokens and money; see the page on limits."
    )
    breaker: BreakerSection = pydantic.Field(
        default=BreakerSection(), description="When a provider that fails is left alone."
    )
    rollout: RolloutSection | None = pydantic.Field(
        default=None, description="Canaries, comparisons and shadows."
    )
    prompts: PromptsSection | None = pydantic.Field(default=None, description="The registry of prompts.")
    approvals: ApprovalsSection | None = pydantic.Field(
        default=None, description="The queue of people for calls that need one."
    )
    access: AccessSection = pydantic.Field(
        default=AccessSection(), description="Who is served without a key; keys are made by people."
    )
    admission: AdmissionSection = pydantic.Field(
        default=AdmissionSection(), description="Component sets that passed no gate; tiers are in `org.yaml`."
    )
    flags: FlagsSection | None = pydantic.Field(
        default=None, description="Flags of an OpenFeature provider, and what each may steer."
    )
    feedback: FeedbackSection | None = pydantic.Field(
        default=FeedbackSection(), description="What users say of answers; null: not taken."
    )
    admin_listen: str = pydantic.Field(
        default="127.0.0.1:8701", description="Address of the admin API; empty: none."
    )
    secrets_renew_s: Seconds = pydantic.Field(
        default=60.0, description="How often keys from Vault and `$${file:path}` are read again."
    )
    seen_texts_bytes: int = pydantic.Field(
        default=DEFAULT_BYTES,
        ge=0,
        le=1 << 30,
        description="How much a guard remembers of what it found in texts that come again; 0: nothing.",
    )
    records: RecordsModel = pydantic.Field(default=RecordsModel(), description="How records are written.")
    telemetry: TelemetrySection = pydantic.Field(
        default=TelemetrySection(), description="Who may read the metrics, and where spans go."
    )

    @pydantic.field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        split_address(value)
        return value

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> GatewayModel:
        _named(self.providers, "provider")
        _named(self.features, "feature")
        if not self.features:
            raise FieldError("features is empty.", hint="Name one, with its policy.")
        found = [*self._misfits(), *self._experiment_misfits(), *self._limit_misfits(), *self._flag_misfits()]
        if found:
            raise FieldError.of(found)
        return self

    def _misfits(self) -> Iterator[FieldError]:
        """What names nothing of this file, or can never be reached."""
        for name, model in self.models.items():
            at: tuple[str | int, ...] = ("models", name)
            yield from _unknown(
                model.provider, self.providers, f"models.{name}: the provider", (*at, "provider")
            )
            is_end = False
            for number, step in enumerate(model.fallback):
                here = (*at, "fallback", number)
                yield from self._cannot(step, f"models.{name}: the fallback", here)
                if step.model == name:
                    yield FieldError(f"models.{name}: the fallback is the model itself.", at=here)
                if is_end:
                    yield FieldError(f"models.{name}: an answer or a person ends the fallbacks.", at=here)
                is_end = is_end or step.model is None
        for name, feature in self.features.items():
            if feature.route is not None:
                yield from self._cannot(
                    feature.route, f"features.{name}: the route", ("features", name, "route")
                )
        for api, provider in self.pass_through.items():
            yield from _unknown(provider, self.providers, "pass_through: the provider", ("pass_through", api))
        if self.default_feature:
            yield from _unknown(
                self.default_feature, self.features, "default_feature: the feature", ("default_feature",)
            )
        elif DEFAULT_FEATURE not in self.features and len(self.features) > 1:
            yield FieldError("default_feature is missing.", hint=f"One of: {', '.join(self.features)}.")
        if self.admin_listen == self.listen and not self.listen.endswith(":0"):
            message = "admin_listen is the address of the data plane."
            yield FieldError(message, hint="Give it another port.", at=("admin_listen",))

    def _cannot(self, step: FallbackModel, what: str, at: tuple[str | int, ...]) -> Iterator[FieldError]:
        if step.model is not None:
            yield from _unknown(step.model, self.models, f"{what} model", (*at, "model"))
        if step.human and self.approvals is None:
            yield FieldError(f"{what} is a person, and there is no queue.", hint="Add: approvals: {}", at=at)

    def _experiment_misfits(self) -> Iterator[FieldError]:
        for number, experiment in enumerate(() if self.rollout is None else self.rollout.experiments):
            at = ("rollout", "experiments", number)
            for feature in experiment.features:
                what = f"rollout: experiment {experiment.id}: the feature"
                yield from _unknown(feature, self.features, what, (*at, "features"))
            for place, variant in enumerate(experiment.variants):
                here = (*at, "variants", place)
                if variant.model and not self.pass_through:
                    what = f"rollout: variant {variant.id}: the model"
                    yield from _unknown(variant.model, self.models, what, here)
                if variant.prompt and self.prompts is None:
                    yield FieldError(
                        f"rollout: variant {variant.id} names a prompt, and there is no registry.",
                        hint="Add: prompts: {}",
                        at=here,
                    )

    def _limit_misfits(self) -> Iterator[FieldError]:
        """A limit for what nobody can ask for never holds."""
        for number, rule in enumerate(() if self.limits is None else self.limits.rules):
            at = ("limits", "rules", number)
            for place, feature in enumerate(rule.features):
                what = f"limits: rule {rule.id}: the feature"
                yield from _unknown(feature, self.features, what, (*at, "features", place))
            for place, model in enumerate(() if self.pass_through else rule.models):
                what = f"limits: rule {rule.id}: the model"
                yield from _unknown(model, self.models, what, (*at, "models", place))

    def _flag_misfits(self) -> Iterator[FieldError]:
        flags, at = self.flags, ("flags",)
        if flags is None:
            return
        for feature in flags.named("feature") | flags.named("policy_of") | flags.named("model_of"):
            yield from _unknown(feature, self.features, "flags: the feature", at)
        for provider in flags.named("provider"):
            yield from _unknown(provider, self.providers, "flags: the provider", at)
        chosen = {each for models in flags.choices("model").values() for each in models}
        for model in () if self.pass_through else sorted(chosen | flags.named("model")):
            yield from _unknown(model, self.models, "flags: the model", at)
        experiments = {} if self.rollout is None else {one.id: one for one in self.rollout.experiments}
        for experiment in flags.named("rollout"):
            yield from _unknown(experiment, experiments, "flags: the experiment", at)

    @property
    def main_feature(self) -> str:
        """The feature of requests that name none."""
        if self.default_feature:
            return self.default_feature
        return DEFAULT_FEATURE if DEFAULT_FEATURE in self.features else next(iter(self.features))


def _unknown(
    name: str, known: Mapping[str, Any], what: str, at: tuple[str | int, ...]
) -> Iterator[FieldError]:
    if name not in known:
        yield FieldError(f"{what} {name!r} is not in this file.", hint=did_you_mean(name, known), at=at)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 addresses stand in brackets.

    Raises:
        FieldError: for anything else.
    """
    found = _ADDRESS.match(text)
    if found is None or int(found["port"]) > 65_535:
        raise FieldError(f"{text!r} is no address to listen on.", hint="For example 127.0.0.1:8700")
    return found["host"].strip("[]"), int(found["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_gateway_file(path: Path, *, env: Mapping[str, str] | None = None) -> Loaded[GatewayModel]:
    """Read and check the file.

    Raises:
        FilesError: with every problem of the file, each with its place.
    """
    return load_file(path, GatewayModel, env=env)


def demo_gateway(script: Path, *, policy: str = "default") -> GatewayModel:
    """What holds with `--demo`: every model's name, of both APIs, is answered from a script."""
    return GatewayModel(
        providers={DEMO: ProviderModel(api="scripted", script=script)},
        pass_through={"openai": DEMO, "anthropic": DEMO},
        features={DEFAULT_FEATURE: FeatureModel(policy=policy)},
    )


def default_gateway(
    *,
    openai: tuple[str, Secret | None],
    anthropic: tuple[str, Secret | None],
    policy: str = "default",
) -> GatewayModel:
    """What holds without a file: both vendors (base URL, key), every model passed through, one feature."""
    vendors: dict[Literal["openai", "anthropic"], tuple[str, Secret | None]] = {
        "openai": openai,
        "anthropic": anthropic,
    }
    return GatewayModel(
        providers={
            name: ProviderModel(api=name, base_url=url, key=key or None)
            for name, (url, key) in vendors.items()
        },
        pass_through={name: name for name in vendors},
        features={DEFAULT_FEATURE: FeatureModel(policy=policy)},
    )
