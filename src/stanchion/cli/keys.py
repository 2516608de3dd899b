"""`stanchion keys`: make a key pair for signing, and see the id of a public key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stanchion.cli.output import FormatOption, OutputFormat, print_json

app = typer.Typer(help="Make and show signing keys.", rich_markup_mode=None, add_completion=False)


@app.callback()
def keys() -> None:
    """Make and show signing keys.

    Example:
        stanchion keys new release.key
    """


@app.command()
def new(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; the public one is beside it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Make an Ed25519 key for its owner alone, and its public half as PATH.pub. Nothing is overwritten.

    Example:
        stanchion keys new release.key
    """
    from stanchion.files.keys import PUBLIC_SUFFIX, write_key_pair

    if dry_run:
        public, key_id = path.with_name(path.name + PUBLIC_SUFFIX), ""
    else:
        public, key_id = write_key_pair(path)
    if output_format is OutputFormat.JSON:
        print_json({"private": str(path), "public": str(public), "id": key_id, "dry_run": dry_run})
    else:
        typer.echo(f"{'would write' if dry_run else 'key'} {key_id or path}: keep {path}, give {public} away")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A public key, or a folder of them.")],
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print the ids of public keys.

    Example:
        stanchion keys show release.key.pub
    """
    from stanchion.files.keys import load_trusted_keys

    ids = list(load_trusted_keys(path))
    if output_format is OutputFormat.JSON:
        print_json(ids)
    else:
        for key_id in ids:
            typer.echo(key_id)
