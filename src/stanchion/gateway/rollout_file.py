"""The section `rollout` of the gateway file: experiments, their variants, and the metrics that judge them."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from stanchion.core.codec import Digest, digest
from stanchion.files.schema import FieldError, FileModel

CONTROL = "control"
_ID = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Metric = Literal["blocked", "error", "slow", "feedback_bad"]


class VariantModel(FileModel):
    """What a variant changes; an empty field leaves things as they are."""

    id: _ID = pydantic.Field(description="The variant's name; `control` is the rest.")
    weight: float = pydantic.Field(ge=0, le=1, description="The share of the experiment's keys at first.")
    model: str = pydantic.Field(default="", description="A model of the gateway file.")
    prompt: str = pydantic.Field(default="", description="A prompt of the registry: name@label.")
    policy: str = pydantic.Field(default="", description="A policy: a packaged name or a file.")

    @pydantic.model_validator(mode="after")
    def _changes_something(self) -> VariantModel:
        if self.id == CONTROL:
            raise FieldError("`control` is what is not in a variant; give the variant another name.")
        if not (self.model or self.prompt or self.policy):
            raise FieldError(f"variant {self.id!r} changes nothing.", hint="Give model, prompt or policy.")
        return self


class MetricModel(FileModel):
    """A share of requests that a variant must not raise by more than a margin."""

    name: Metric = pydantic.Field(description="blocked, error, slow or feedback_bad.")
    max_increase: float = pydantic.Field(
        gt=0, le=1, description="More than this above control is harm; within it counts as no worse."
    )
    slow_ms: float | None = pydantic.Field(default=None, gt=0, description="For `slow`: the bound.")

    @pydantic.model_validator(mode="after")
    def _bound(self) -> MetricModel:
        if (self.name == "slow") != (self.slow_ms is not None):
            raise FieldError("`slow_ms` belongs to the metric `slow`, and only to it.")
        return self


class ExperimentModel(FileModel):
    """One experiment."""

    id: _ID = pydantic.Field(description="Its name in records and commands.")
    mode: Literal["canary", "ab", "shadow"] = pydantic.Field(
        default="canary", description="shadow: variants run beside and are never shown."
    )
    layer: str = pydantic.Field(
        default="", max_length=64, description="Experiments of one layer never meet; empty: on its own."
    )
    share: float = pydantic.Field(default=1.0, gt=0, le=1, description="The share of its layer's keys.")
    features: tuple[str, ...] = pydantic.Field(default=(), description="Only these features; empty: all.")
    sticky: Literal["user", "session", "tenant", "key", "request"] = pydantic.Field(
        default="user", description="What keeps its variant; where it is not known, the next narrower."
    )
    variants: tuple[VariantModel, ...] = pydantic.Field(min_length=1, max_length=20)
    metrics: tuple[MetricModel, ...] = pydantic.Field(default=(), max_length=8)
    confidence: float = pydantic.Field(
        default=0.95, gt=0.5, lt=1, description="Of all its verdicts together."
    )
    min_cases: int = pydantic.Field(default=200, ge=1, description="Fewer in an arm decide nothing.")
    steps: tuple[float, ...] = pydantic.Field(
        default=(), max_length=10, description="Weights of the canary, step by step; the last one stays."
    )
    may_loosen: bool = pydantic.Field(
        default=False, description="Whether a shown variant's policy may be weaker than the feature's."
    )
    act: bool = pydantic.Field(default=False, description="Whether the verdict is acted on.")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> ExperimentModel:
        ids = [variant.id for variant in self.variants]
        if len(set(ids)) != len(ids):
            raise FieldError(f"experiment {self.id!r} names a variant twice.")
        if self.mode != "shadow" and sum(v.weight for v in self.variants) > 1 + 1e-9:
            raise FieldError(f"the weights of experiment {self.id!r} add up to more than 1.")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise FieldError(f"experiment {self.id!r} names a metric twice.")
        if self.act and not self.metrics:
            raise FieldError("`act` needs metrics to act on.")
        if self.act and self.mode == "shadow":
            raise FieldError("a shadow is never shown, so there is nothing to act on.")
        return self._check_steps()

    def _check_steps(self) -> ExperimentModel:
        if not self.steps:
            return self
        if len(self.variants) != 1:
            raise FieldError("`steps` is for one variant.")
        weights = (self.variants[0].weight, *self.steps)
        if any(not 0 < w <= 1 for w in self.steps) or list(weights) != sorted(set(weights)):
            raise FieldError("`steps` must rise from the variant's weight, up to 1.")
        return self

    @property
    def digest(self) -> Digest:
        """The identity of what is compared: another one starts the counts anew.

        `act` and `may_loosen` are not part of it: to act on what has been seen, or to be allowed what is
        compared, is no other experiment.
        """
        return digest(self.model_dump(mode="json", exclude={"act", "may_loosen"}))


class RolloutSection(FileModel):
    """The section `rollout`."""

    experiments: tuple[ExperimentModel, ...] = pydantic.Field(default=(), max_length=200)
    every_s: float = pydantic.Field(
        default=2.0, ge=0.1, le=3600, description="How often counts are shared and verdicts taken."
    )

    @pydantic.model_validator(mode="after")
    def _unique(self) -> RolloutSection:
        ids = [one.id for one in self.experiments]
        if len(set(ids)) != len(ids):
            raise FieldError("two experiments have one name.")
        layers: dict[str, float] = {}
        for one in self.experiments:
            if one.layer:
                layers[one.layer] = layers.get(one.layer, 0.0) + one.share
        full = [name for name, total in layers.items() if total > 1 + 1e-9]
        if full:
            raise FieldError(f"the shares of layer {full[0]!r} add up to more than 1.")
        return self
