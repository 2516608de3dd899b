"""The section `telemetry` of the gateway file: who may read the metrics, where spans go, in whose words."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import pydantic

from stanchion.files.schema import FieldError, FileModel
from stanchion.gateway.observed import TracingObserver
from stanchion.telemetry.names import Profile, profile_of

_PATH = "/v1/traces"


class TelemetrySection(FileModel):
    """Metrics and spans. Neither ever holds a word of a request."""

    metrics: Literal["loopback", "open", "off"] = pydantic.Field(
        default="loopback", description="Who may read `/metrics`: this machine, everybody, or nobody."
    )
    otlp_endpoint: str = pydantic.Field(
        default="",
        description="Where spans go, by OTLP/HTTP, such as `http://127.0.0.1:4318`; default: the setting.",
    )
    service: str = pydantic.Field(
        default="stanchion-gateway", min_length=1, max_length=200, description="`service.name` of the spans."
    )
    semconv: Literal["1.37", "latest"] | None = pydantic.Field(
        default=None,
        description="Edition of the conventions; default: as `OTEL_SEMCONV_STABILITY_OPT_IN` says.",
    )
    openinference: bool = pydantic.Field(
        default=False, description="Say the attributes of OpenInference too, for Phoenix and its like."
    )
    sampled: float = pydantic.Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of new traces that is sent; a client's `traceparent` decides for its own.",
    )

    @pydantic.field_validator("otlp_endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value:
            traces_url(value)
        return value


def traces_url(endpoint: str) -> str:
    """The address for spans of an OTLP/HTTP endpoint, with or without its path.

    Raises:
        FieldError: for what is no http(s) address, and for one with a user name or password.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FieldError("this is no http(s) address of a collector.", hint="Such as http://127.0.0.1:4318")
    if parts.username is not None or parts.password is not None:
        raise FieldError(
            "the address of a collector holds a user name or password.",
            hint="Put them into OTEL_EXPORTER_OTLP_HEADERS, which is never shown.",
        )
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else f"{path}{_PATH}").geturl()


def make_tracing(
    section: TelemetrySection, *, endpoint: str = "", opt_in: str = ""
) -> TracingObserver | None:
    """What makes the spans; None where no endpoint is configured. `endpoint`, `opt_in`: the settings'.

    Raises:
        FieldError: for an endpoint that is no address.
        MissingExtraError: when the extra `otel` is not installed.
    """
    from stanchion.telemetry.tracing import Tracing

    address = section.otlp_endpoint or endpoint
    if not address:
        return None
    profile = profile_of(opt_in) if section.semconv is None else Profile(section.semconv)
    tracing = Tracing(
        endpoint=traces_url(address), service=section.service, openinference=section.openinference
    )
    return TracingObserver(tracing, profile=profile)
