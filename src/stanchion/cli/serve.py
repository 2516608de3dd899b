"""`stanchion serve`: the gateway in front of your models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.output import err_console, note
from stanchion.core.errors import UsageError

if TYPE_CHECKING:
    from stanchion.bootstrap_gateway import GatewaySources
    from stanchion.gateway.serving import ServeOptions


def serve(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="The gateway file; default: both vendors, one policy.")
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="host:port; default: the file's, or 127.0.0.1:8700.")
    ] = "",
    policy: Annotated[
        str, typer.Option("--policy", help="The policy of the default feature: a name or a file.")
    ] = "",
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that serve.")] = 1,
    drain_s: Annotated[
        float, typer.Option("--drain-s", min=0, help="How long streams may go on after a stop.")
    ] = 30.0,
    unready_s: Annotated[
        float,
        typer.Option(
            "--unready-s",
            min=0,
            help="After a stop, how long requests are still taken while readiness says no already.",
        ),
    ] = 0.0,
    check: Annotated[bool, typer.Option("--check", help="Read and check everything, then end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only what was stopped.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Answer from a script instead of a model: no key is needed.")
    ] = False,
) -> None:
    """Serve the gateway in front of your models: change a client's base URL, and answers come under guard.

    Ends on SIGTERM or Ctrl-C when the streams in progress are over; SIGHUP reads the files again.

    Example:
        stanchion serve --check
    """
    from stanchion.bootstrap_gateway import GatewaySources
    from stanchion.config import load_settings, process_environment
    from stanchion.gateway.serving import ServeOptions

    if demo and config is not None:
        raise UsageError(
            "--demo and --config exclude each other.",
            hint="A gateway file names its own models; `api: scripted` is one without a key.",
        )
    settings = load_settings(file=ctx.obj)
    sources = GatewaySources(
        settings=settings,
        metrics_folder=settings.state_dir / "metrics" if workers > 1 else None,
        file=config,
        policy=policy,
        listen=listen,
        env=process_environment(),
        is_demo=demo,
    )
    if check:
        _check(sources)
        return
    _serve(sources, ServeOptions(drain_s=drain_s, unready_s=unready_s), workers=workers, is_quiet=quiet)


def _serve(sources: GatewaySources, options: ServeOptions, *, workers: int, is_quiet: bool) -> None:
    from stanchion.bootstrap_gateway import gateway_model
    from stanchion.gateway.serving import listening_socket

    model, _, _ = gateway_model(sources)
    bound = listening_socket(sources.listen or model.listen, backlog=options.backlog)
    if workers > 1:
        from stanchion.cli.serve_workers import run_workers

        raise typer.Exit(run_workers(sources, options, bound, workers=workers, is_quiet=is_quiet))
    _serve_here(sources, options, bound, is_quiet=is_quiet)


def _serve_here(sources: GatewaySources, options: ServeOptions, bound: Any, *, is_quiet: bool) -> None:
    from stanchion.cli.serve_process import make_process, run_process
    from stanchion.cli.serve_view import greet
    from stanchion.gateway.serving import shown_address

    console = err_console()
    with console.status("Loading the policy and its detectors ..."):
        process = make_process(sources, console, is_quiet=is_quiet)
    greet(console, process, shown_address(bound))
    run_process(process, options, bound)


def _check(sources: GatewaySources) -> None:
    from stanchion.bootstrap_gateway import gateway_model, make_gateway
    from stanchion.cli.serve_view import in_force, weaker_lines

    process = make_gateway(sources)
    try:
        live = process.gateway.live
        for name, feature in live.features.items():
            note(f"feature {name}: {feature.guard_state}, streams {feature.guarantee}")
        for weaker in weaker_lines(live):
            note(f"WEAKER {weaker}")
        for name, provider in gateway_model(sources)[0].providers.items():
            if provider.key is not None and not provider.key:
                note(f"provider {name}: its key is empty, so it is asked without one, nor with clients' keys")
        for line in in_force(live):
            note(line)
        note(f"models: {', '.join(live.models.names()) or 'every model of the pass-through providers'}")
        note(f"configuration {live.digest}: fine")
    finally:
        process.close()
