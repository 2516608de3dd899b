"""Plugs together what `stanchion admission` looks at: the signed list, the tiers, and a gateway file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.admission import Ungated
    from stanchion.gateway.admission_view import AdmissionView


def make_admission_view(plane: AdminPlane, *, gateway_file: Path | None = None) -> AdmissionView:
    """What gateways decide by the list of this database, the safety folder, and a gateway file.

    Without a gateway file nothing makes the tiers stricter.

    Raises:
        UsageError: when the safety folder or the gateway file cannot be read.
    """
    from stanchion.gateway.admission import Ungated
    from stanchion.gateway.admission_view import AdmissionView, read_list

    at_least, flag = Ungated.ALLOW, None
    if gateway_file is not None:
        at_least, flag = _stricter(plane, gateway_file)
    return AdmissionView(
        read_list(plane.store),
        clock=plane.clock,
        tiers=plane.organisation.ungated(),
        at_least=at_least,
        flag=flag,
    )


def _stricter(plane: AdminPlane, gateway_file: Path) -> tuple[Ungated, Ungated | None]:
    """What the gateway file says at least, and its flag as it stands now."""
    from stanchion.bootstrap_flags import make_flags
    from stanchion.bootstrap_gateway import GatewaySources, gateway_model
    from stanchion.config import process_environment

    sources = GatewaySources(settings=plane.settings, file=gateway_file, env=process_environment())
    model, folder, _ = gateway_model(sources)
    if model.flags is None:
        return model.admission.at_least, None
    steering = make_flags(model.flags, folder=folder)
    try:
        return model.admission.at_least, steering.ungated() if steering.ungated_is_steered else None
    finally:
        steering.flags.stop()
