"""The section `limits` of the gateway file: rules, prices, where counts are kept, penalties."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
import pydantic

from stanchion.core.decision import OnFailure
from stanchion.files.references import Secret
from stanchion.files.schema import FieldError, FileModel

ANY_MODEL = "*"
MICRO = 1_000_000
_EVERY = re.compile(r"([1-9][0-9]{0,6})(s|m|h)", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
_MAX_WINDOW_S = 24 * 3600
_ID = pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")

Subject = Literal["key", "tenant", "user", "feature", "model"]


class Every(msgspec.Struct, frozen=True):
    """How often a limit starts anew: a sliding window of `seconds`, or a calendar period in UTC."""

    seconds: int = 0
    period: str = ""

    @classmethod
    def parse(cls, text: str) -> Every:
        """`10s`, `1m`, `6h` (at most 24 hours), `day` or `month`.

        Raises:
            FieldError: for anything else.
        """
        if text in ("day", "month"):
            return cls(period=text)
        found = _EVERY.fullmatch(text)
        seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
        if not 0 < seconds <= _MAX_WINDOW_S:
            raise FieldError(f"{text!r} is no window.", hint="Write 10s, 1m, 6h, day or month.")
        return cls(seconds=seconds)


class LimitRule(FileModel):
    """One limit: what is counted, for whom, in which window. Several rules hold together."""

    id: Annotated[str, _ID] = pydantic.Field(description="The name in errors, health and the record.")
    per: tuple[Subject, ...] = pydantic.Field(
        default=(), description="Each combination has a count of its own; empty: one count for all."
    )
    features: tuple[str, ...] = pydantic.Field(
        default=(), description="Only for these features; empty: for all."
    )
    tenants: tuple[str, ...] = pydantic.Field(default=(), description="Only for these keyed tenants.")
    models: tuple[str, ...] = pydantic.Field(default=(), description="Only for these models.")
    requests: int | None = pydantic.Field(default=None, ge=1, le=10**12)
    concurrency: int | None = pydantic.Field(
        default=None, ge=1, le=10**6, description="Requests at the same time."
    )
    tokens: int | None = pydantic.Field(
        default=None, ge=1, le=10**12, description="Input and output together."
    )
    usd: float | None = pydantic.Field(default=None, gt=0, le=1e9, description="Money, by `prices`.")
    every: str = pydantic.Field(default="", description="10s, 1m, 6h, day or month; none for concurrency.")

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> LimitRule:
        kinds = [n for n in ("requests", "concurrency", "tokens", "usd") if getattr(self, n) is not None]
        if len(kinds) != 1:
            raise FieldError(
                f"limit {self.id!r} counts {len(kinds)} things.",
                hint="Give exactly one of requests, concurrency, tokens, usd.",
            )
        if (kinds[0] == "concurrency") == bool(self.every):
            raise FieldError(f"limit {self.id!r}: `every` is for all kinds but concurrency.")
        if self.every:
            Every.parse(self.every)
        return self

    @property
    def kind(self) -> str:
        """`requests`, `concurrency`, `tokens` or `usd`."""
        return next(n for n in ("requests", "concurrency", "tokens", "usd") if getattr(self, n) is not None)

    @property
    def most(self) -> int:
        """The limit in whole units; money in millionths of a dollar."""
        return round(self.usd * MICRO) if self.usd is not None else int(getattr(self, self.kind))

    @property
    def window(self) -> Every:
        """The window; all zero for concurrency."""
        return Every.parse(self.every) if self.every else Every()


class Price(FileModel):
    """What a model costs, in US dollars for a million tokens."""

    input_usd_per_million: float = pydantic.Field(ge=0, le=1e6)
    output_usd_per_million: float = pydantic.Field(ge=0, le=1e6)


class PenaltySection(FileModel):
    """What happens to a caller whose requests are blocked again and again."""

    per: Literal["key", "tenant", "user"] = pydantic.Field(default="user", description="Who is counted.")
    window_s: int = pydantic.Field(
        default=600, ge=1, le=86_400, description="Blocked requests are counted so long."
    )
    slow_after: int = pydantic.Field(
        default=5, ge=1, description="Blocked requests until the caller is slowed."
    )
    slow_interval_s: float = pydantic.Field(
        default=5.0, gt=0, le=3600, description="One request in so many seconds."
    )
    block_after: int = pydantic.Field(
        default=15, ge=2, description="Blocked requests until the caller is blocked."
    )
    block_s: int = pydantic.Field(
        default=900, ge=1, le=30 * 86_400, description="How long the first block lasts."
    )
    block_most_s: int = pydantic.Field(
        default=86_400, ge=1, le=365 * 86_400, description="Each block is twice the last."
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> PenaltySection:
        if self.block_after <= self.slow_after:
            raise FieldError("block_after must be above slow_after.")
        if self.block_most_s < self.block_s:
            raise FieldError("block_most_s must not be below block_s.")
        return self


class LimitsSection(FileModel):
    """The section `limits`."""

    storage: Literal["memory", "redis"] = pydantic.Field(
        default="memory",
        description="Where windows and concurrency are counted; redis is shared by all workers.",
    )
    redis_url: Secret | None = pydantic.Field(default=None, description="redis://, rediss:// or unix://.")
    timeout_ms: int = pydantic.Field(default=250, ge=1, le=10_000, description="How long Redis may take.")
    on_failure: OnFailure = pydantic.Field(
        default=OnFailure.DEGRADE,
        description="When the counts cannot be reached: closed refuses, open lets pass, degrade counts here.",
    )
    degrade_share: float = pydantic.Field(
        default=0.25,
        gt=0,
        le=1,
        description="The share of each limit that one worker grants while it counts alone.",
    )
    lease_s: int = pydantic.Field(
        default=30,
        ge=2,
        le=3600,
        description="How long a killed worker's concurrent requests go on counting.",
    )
    max_request_s: int = pydantic.Field(
        default=900, ge=1, le=86_400, description="A reservation nobody settles ends after so long."
    )
    budget_slice: float = pydantic.Field(
        default=0.01,
        gt=0,
        le=1,
        description="The share of a day's or month's budget that a worker takes at once.",
    )
    default_output_tokens: int = pydantic.Field(
        default=4096,
        ge=1,
        le=10**7,
        description="Set aside for an answer whose length the request does not limit.",
    )
    prices: dict[str, Price] = pydantic.Field(
        default_factory=dict, description="By model; `*` is for every other one."
    )
    rules: tuple[LimitRule, ...] = ()
    penalties: PenaltySection | None = None

    @pydantic.field_validator("rules")
    @classmethod
    def _unique(cls, rules: tuple[LimitRule, ...]) -> tuple[LimitRule, ...]:
        ids = [rule.id for rule in rules]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise FieldError(f"two limits are named {twice[0]!r}.")
        return rules

    @pydantic.model_validator(mode="after")
    def _complete(self) -> LimitsSection:
        if self.storage == "redis" and self.redis_url is None:
            raise FieldError("storage redis needs `redis_url`.")
        if any(rule.usd is not None for rule in self.rules) and ANY_MODEL not in self.prices:
            raise FieldError(
                "a limit in usd needs a price for every model.",
                hint="Add the key '*' to `prices`: what an unlisted model is taken to cost.",
            )
        return self

    def price(self, model: str) -> Price | None:
        """The price of a model, or of any other."""
        return self.prices.get(model) or self.prices.get(ANY_MODEL)


def parse_section(value: dict[str, Any]) -> LimitsSection:
    """A section from plain values, for callers without a file."""
    import json

    return LimitsSection.model_validate_json(json.dumps(value), strict=True)
