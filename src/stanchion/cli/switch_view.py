"""Lines about switches, lifts and leases, as the commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.control_store import Published
    from stanchion.gateway.switch_acts import Lifting
    from stanchion.gateway.switch_state import SwitchState


def show_state(plane: AdminPlane, state: SwitchState) -> None:
    """What is switched off, lent, and waits."""
    from stanchion.store.times import from_us, to_us

    now_us = to_us(plane.clock.now())
    for each in state.engaged:
        at = from_us(each.engaged_at_us).isoformat(timespec="seconds")
        typer.secho(f"  ENGAGED  {each.target}", fg="red", bold=True)
        typer.echo(f"           {each.reason}; by {each.engaged_by} at {at}, v{each.version}")
    for held in state.leases:
        until = from_us(held.expires_at_us).isoformat(timespec="seconds")
        if now_us >= held.expires_at_us:
            typer.secho(f"  ENDED    {held.target}: the lease ended at {until}; it is switched off", fg="red")
        else:
            typer.echo(f"  lease    {held.target} until {until}; {held.reason}; by {held.granted_by}")
    for wish in state.lifts:
        found = state.by_id(wish.switch_id)
        target = str(found.target) if found is not None else wish.switch_id.removeprefix("lease:")
        typer.echo(
            f"  lift     {target}: wanted by {', '.join(wish.by)} ({len(wish.by)} of {wish.people}); "
            f"{wish.reason}"
        )
    if not (state.engaged or state.leases):
        typer.echo("  nothing is switched off")


def lifting_lines(published: Published) -> list[str]:
    """What became of a lift, and how those who want it are known."""
    lifting: Lifting = published.answer
    wanted = f"  wanted   by {_known(lifting)}"
    if lifting.is_lifted:
        return [wanted]
    if lifting.still_needed:
        count = "1 more person" if lifting.still_needed == 1 else f"{lifting.still_needed} more people"
        needed = f"needs {count} until {lifting.expires_at}"
    else:
        needed = f"may be confirmed from {lifting.not_before} on"
    return [
        wanted,
        "  still    switched off",
        f"  lift     {needed}: stanchion switch confirm {lifting.target}",
    ]


def _known(lifting: Lifting) -> str:
    proofs = (*lifting.proofs, *("stated" for _ in lifting.by[len(lifting.proofs) :]))
    said = ", ".join(
        f"{person} ({'proved by a key' if proof.startswith('key:') else 'only stated'})"
        for person, proof in zip(lifting.by, proofs, strict=True)
    )
    return f"{said}; alone, after a wait" if lifting.is_sole else said


def lease_lines(published: Published) -> list[str]:
    """Until when a lease lasts."""
    from stanchion.store.times import from_us

    until = from_us(published.answer.expires_at_us).isoformat(timespec="seconds")
    return [
        f"  until    {until}, then it is switched off",
        f"  renew    stanchion switch renew {published.answer.target}",
    ]
