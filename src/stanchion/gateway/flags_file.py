"""The section `flags` of the gateway file: flags of any OpenFeature provider, and what each steers.

The name of a flag says what it steers:

```
feature.NAME.enabled   model.NAME.enabled   provider.NAME.enabled   tool.NAME.enabled     true or false
rollout.EXPERIMENT.share                                                                  a share in [0, 1]
feature.NAME.policy    feature.NAME.model                                                 one of its values
admission.ungated                                                                         allow, warn or block
```
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pydantic

from stanchion.files.schema import FieldError, FileModel
from stanchion.gateway.admission import Ungated

AS_ASKED = "asked"
UNGATED_FLAG = "admission.ungated"
_ENABLED = re.compile(r"(feature|model|provider|tool)\.(.+)\.enabled\Z")
_SHARE = re.compile(r"rollout\.([a-z][a-z0-9_-]*)\.share\Z")
_CHOICE = re.compile(r"feature\.([a-z0-9][a-z0-9_.-]*)\.(policy|model)\Z")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")
_HINT = (
    "A flag is feature.NAME.enabled (also model, provider, tool), rollout.EXPERIMENT.share, "
    "feature.NAME.policy, feature.NAME.model, or admission.ungated."
)


class FlagModel(FileModel):
    """One flag that is read."""

    safe: bool | float | str = pydantic.Field(
        description="What holds while the provider does not give a value that can be used."
    )
    values: tuple[str, ...] = pydantic.Field(
        default=(), max_length=50, description="For a policy or a model: every value that is taken."
    )
    flag: str = pydantic.Field(default="", max_length=200, description="Its key there; default: this name.")


class FlagProviderModel(FileModel):
    """Where flags come from: flagd, or a function of yours that gives an OpenFeature provider."""

    flagd_file: Path | None = pydantic.Field(
        default=None, description="A flagd definition on disk, watched for changes; no server is asked."
    )
    flagd: str = pydantic.Field(default="", description="A flagd server, `host:port`.")
    tls: bool = pydantic.Field(default=True, description="Whether the flagd server is asked over TLS.")
    factory: str = pydantic.Field(
        default="", description="`module:function` without arguments, for every other provider."
    )

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> FlagProviderModel:
        if sum(map(bool, (self.flagd_file, self.flagd, self.factory))) != 1:
            raise FieldError("a provider of flags is one of flagd_file, flagd, factory.")
        if self.flagd and not re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]{1,5}", self.flagd):
            raise FieldError(
                f"{self.flagd!r} is no address of a flagd server.", hint="For example flagd:8013"
            )
        if self.factory and not _FACTORY.match(self.factory):
            raise FieldError(f"{self.factory!r} names no function.", hint="Write module:function.")
        return self


class FlagsSection(FileModel):
    """The section `flags`."""

    provider: FlagProviderModel = pydantic.Field(description="Where the flags come from.")
    refresh_s: float = pydantic.Field(default=1.0, ge=0.05, le=3600, description="How often they are read.")
    max_age_s: float = pydantic.Field(
        default=30.0,
        ge=0.1,
        le=86_400,
        description="A reading that is older does not count: the safe values hold.",
    )
    read: dict[str, FlagModel] = pydantic.Field(
        min_length=1, max_length=1000, description="The flags by name; the name says what each steers."
    )

    @pydantic.model_validator(mode="after")
    def _mean_something(self) -> FlagsSection:
        for name, flag in self.read.items():
            _check(name, flag)
        return self

    def named(
        self, kind: Literal["feature", "model", "provider", "policy_of", "model_of", "rollout"]
    ) -> set[str]:
        """The names of what the flags steer, of one kind."""
        found: set[str] = set()
        for name in self.read:
            if (enabled := _ENABLED.match(name)) and enabled[1] == kind:
                found.add(enabled[2])
            elif (choice := _CHOICE.match(name)) and f"{choice[2]}_of" == kind:
                found.add(choice[1])
            elif (share := _SHARE.match(name)) and kind == "rollout":
                found.add(share[1])
        return found

    def choices(self, kind: Literal["policy", "model"]) -> dict[str, tuple[str, ...]]:
        """By feature: every policy, or model, that a flag may choose; `asked` is none."""
        return {
            feature: tuple(each for each in self.read[f"feature.{feature}.{kind}"].values if each != AS_ASKED)
            for feature in sorted(self.named("policy_of" if kind == "policy" else "model_of"))
        }


def _check(name: str, flag: FlagModel) -> None:
    if _ENABLED.match(name):
        _is(isinstance(flag.safe, bool) and not flag.values, name, "true or false, without `values`")
    elif _SHARE.match(name):
        is_share = (
            isinstance(flag.safe, float | int) and not isinstance(flag.safe, bool) and 0 <= flag.safe <= 1
        )
        _is(is_share and not flag.values, name, "a share from 0 to 1, without `values`")
    elif _CHOICE.match(name):
        _is(bool(flag.values) and flag.safe in flag.values, name, "one of its `values`")
    elif name == UNGATED_FLAG:
        _is(flag.safe in set(Ungated) and not flag.values, name, "allow, warn or block, without `values`")
    else:
        raise FieldError(f"{name!r} steers nothing.", hint=_HINT)


def _is(is_right: bool, name: str, what: str) -> None:
    if not is_right:
        raise FieldError(f"the safe value of {name} is {what}.")
