"""Plugs flags of other systems into the gateway: an OpenFeature provider, read in a thread."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanchion.core.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from stanchion.gateway.flag_steering import FlagSteering
    from stanchion.gateway.flags_file import FlagProviderModel, FlagsSection
    from stanchion.gateway.ports import Switches

_READY_WAIT_S = 2.0
_LOOK_S = 0.02


def make_flags(section: FlagsSection, *, folder: Path) -> FlagSteering:
    """The flags of a section, read once, and then in a thread until `flags.stop`.

    A provider that is not ready in two seconds is no error: the safe values hold until it is.

    Raises:
        MissingExtraError: without the OpenFeature SDK.
        UsageError: for a provider that cannot be made.
    """
    try:
        from openfeature import api
    except ModuleNotFoundError as error:
        raise MissingExtraError("Reading feature flags", "flags") from error
    from stanchion.core.codec import digest
    from stanchion.gateway.flag_steering import FlagSteering
    from stanchion.integrations.flag_readings import Flag, SafeFlags

    domain = f"stanchion-gateway-{digest(section.model_dump(mode='json'))[-16:]}"
    api.set_provider(_provider(section.provider, folder), domain)
    client = api.get_client(domain)
    _wait(client)
    flags = SafeFlags(
        client,
        [
            Flag(name, safe=one.safe, values=_values(name, one.values), asked=one.flag)
            for name, one in section.read.items()
        ],
        refresh_s=section.refresh_s,
        max_age_s=section.max_age_s,
    )
    flags.start()
    return FlagSteering(flags)


def with_flags(switches: Switches, steering: FlagSteering | None) -> Switches:
    """The switches, and what flags stop besides."""
    from stanchion.gateway.ports import Engaged
    from stanchion.integrations.flag_readings import FlaggedSwitches

    if steering is None:
        return switches
    flags: Any = steering.flags
    return FlaggedSwitches(switches, flags, make_stop=Engaged)


def _values(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    from stanchion.gateway.admission import Ungated
    from stanchion.gateway.flags_file import UNGATED_FLAG

    return tuple(Ungated) if name == UNGATED_FLAG else values


def _wait(client: Any) -> None:
    from openfeature.provider import ProviderStatus

    end = time.monotonic() + _READY_WAIT_S
    while client.get_provider_status() == ProviderStatus.NOT_READY and time.monotonic() < end:
        time.sleep(_LOOK_S)


def _provider(model: FlagProviderModel, folder: Path) -> Any:
    if model.factory:
        return _made(model.factory)
    flagd = importlib.util.find_spec("openfeature.contrib.provider.flagd")
    if flagd is None:
        raise UsageError(
            "flags of flagd need the package 'openfeature-provider-flagd', which is not installed.",
            hint="Install it: pip install openfeature-provider-flagd",
        )
    from openfeature.contrib.provider.flagd import FlagdProvider
    from openfeature.contrib.provider.flagd.config import ResolverType

    if model.flagd_file is not None:
        path = folder / model.flagd_file
        if not path.is_file():
            raise UsageError(f"flags: there is no file {path}.", hint="Name a flagd definition.")
        return FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path))
    host, _, port = model.flagd.partition(":")
    return FlagdProvider(host=host, port=int(port), tls=model.tls, resolver_type=ResolverType.RPC)


def _made(factory: str) -> Any:
    module, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module), name)()
    except Exception as error:  # a provider is somebody else's code
        raise UsageError(
            f"flags: {factory} gave no provider: {type(error).__name__}.",
            hint="It is called without arguments and gives an OpenFeature provider.",
        ) from error
