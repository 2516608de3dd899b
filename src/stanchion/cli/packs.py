"""`stanchion packs`: build, install, look at, enable and roll back signed content packs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.output import FormatOption, OutputFormat, counted, print_json

if TYPE_CHECKING:
    from stanchion.detectors.pack_file import PackManifest
    from stanchion.detectors.packs import InstalledPack, PackStore

app = typer.Typer(
    help="Install and enable signed content packs.", rich_markup_mode=None, add_completion=False
)
NameArgument = Annotated[str, typer.Argument(help="The pack's name.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check and say what would be done.")]


@app.callback()
def packs() -> None:
    """Install and enable signed content packs.

    A pack holds patterns, corpora, catalogues and weights in one file.

    Packs lie in `packs_dir`; only those that a key of `packs_keys` signed are used.

    Example:
        stanchion packs list
    """


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="The folder with `pack.yaml`.")],
    key: Annotated[Path, typer.Option("--key", help="The private key that signs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Make a signed pack of a folder. The same folder gives the same bytes.

    Example:
        stanchion packs build acme-pack --key release.key --out acme-1.0.pack
    """
    from stanchion.detectors.pack_file import build_pack
    from stanchion.files.keys import load_private_key, replace_file

    manifest, data = build_pack(folder, load_private_key(key))
    if not dry_run:
        replace_file(out, data)
    if output_format is OutputFormat.JSON:
        print_json({**_described(manifest), "bytes": len(data), "dry_run": dry_run})
    else:
        done = "would write" if dry_run else "wrote"
        files = counted(len(manifest.files), "file")
        typer.echo(f"{done} {out}: {manifest.name} {manifest.version}, {files}, {len(data):,} bytes")


@app.command()
def install(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The pack's file.")],
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Verify a pack and put it in. What it detects is recorded only, until it is enabled.

    Exits 1 when the signature, a digest or the version does not fit.

    Example:
        stanchion packs install acme-1.0.pack
    """
    from stanchion.detectors.packs import read_pack

    store, data = _store(ctx), read_pack(file)
    if dry_run:
        manifest = store.check(data, name=str(file)).manifest
        if output_format is OutputFormat.JSON:
            print_json({**_described(manifest), "dry_run": True})
        else:
            typer.echo(f"would install {manifest.name} {manifest.version}")
        return
    _print_state(store.install(data, name=str(file)), output_format)


@app.command("list")
def list_packs(ctx: typer.Context, output_format: FormatOption = OutputFormat.TEXT) -> None:
    """Print the installed packs: which version decides, which runs in shadow.

    Example:
        stanchion packs list --format json
    """
    installed = _store(ctx).installed()
    if output_format is OutputFormat.JSON:
        print_json(installed)
        return
    for pack in installed:
        typer.echo(_line(pack))


@app.command()
def show(ctx: typer.Context, name: NameArgument, output_format: FormatOption = OutputFormat.TEXT) -> None:
    """Print the signed manifest of a pack: of the enabled version, else of the one in shadow.

    Example:
        stanchion packs show acme
    """
    store = _store(ctx)
    pack = store.find(name)
    manifest = store.manifest(name, pack.enabled or pack.shadowed or pack.highest)
    if output_format is OutputFormat.JSON:
        print_json({**_described(manifest), "state": pack})
        return
    typer.echo(f"{manifest.name} {manifest.version}  {manifest.title}".rstrip())
    typer.echo(f"digest   {manifest.digest}")
    typer.echo(f"state    {_line(pack)}")
    for one in manifest.files:
        typer.echo(f"{one.kind.value:<10} {one.path}  {one.size:,} bytes")


@app.command()
def verify(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The pack's name; all when none is given.")] = "",
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Verify signatures and every file of the versions in use. Exits 1 when one is not what was signed.

    Example:
        stanchion packs verify
    """
    store = _store(ctx)
    listed = (store.find(name),) if name else store.installed()
    used = [(pack.name, version) for pack in listed for version in (pack.enabled, pack.shadowed) if version]
    found = [_described(store.verify(pack, version)) for pack, version in used]
    if output_format is OutputFormat.JSON:
        print_json(found)
    else:
        for one in found:
            typer.echo(f"{one['name']} {one['version']}: signature and {len(one['files'])} files good")


@app.command()
def enable(
    ctx: typer.Context,
    name: NameArgument,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Let the version in shadow decide. The version before is kept for a rollback.

    Example:
        stanchion packs enable acme
    """
    store = _store(ctx)
    _print_state(store.find(name) if dry_run else store.enable(name), output_format, dry_run=dry_run)


@app.command()
def rollback(
    ctx: typer.Context,
    name: NameArgument,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Drop the version in shadow; when there is none, bring back the version before.

    Example:
        stanchion packs rollback acme
    """
    store = _store(ctx)
    _print_state(store.find(name) if dry_run else store.rollback(name), output_format, dry_run=dry_run)


def _store(ctx: typer.Context) -> PackStore:
    from stanchion.bootstrap import make_pack_store
    from stanchion.config import load_settings

    return make_pack_store(load_settings(file=ctx.obj))


def _described(manifest: PackManifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "title": manifest.title,
        "source": manifest.source,
        "digest": manifest.digest,
        "files": [{"path": one.path, "kind": one.kind.value, "size": one.size} for one in manifest.files],
    }


def _line(pack: InstalledPack) -> str:
    return (
        f"{pack.name}: enabled {pack.enabled or '-'}, shadow {pack.shadowed or '-'}, "
        f"before {pack.former[-1] if pack.former else '-'}"
    )


def _print_state(pack: InstalledPack, output_format: OutputFormat, *, dry_run: bool = False) -> None:
    if output_format is OutputFormat.JSON:
        print_json({"pack": pack, "dry_run": dry_run})
    else:
        typer.echo(f"{'unchanged, is now ' if dry_run else ''}{_line(pack)}")
