"""`stanchion retrieval`: index documents under a policy, verify an index, quarantine what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stanchion.cli.output import FormatOption, OutputFormat, counted, print_json
from stanchion.core.errors import ExitCode

app = typer.Typer(
    help="Index, verify and quarantine retrieved documents.", rich_markup_mode=None, add_completion=False
)
DocumentsOption = Annotated[
    Path, typer.Argument(help="Rows: id, text, source, tenant, readers, changed_at (.jsonl, .gz, .zst).")
]


@app.callback()
def retrieval() -> None:
    """Index, verify and quarantine retrieved documents.

    Example:
        stanchion retrieval verify index.json --keys keys
    """


@app.command()
def index(
    ctx: typer.Context,
    documents: DocumentsOption,
    key: Annotated[Path, typer.Option("--key", help="The private key that signs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The index manifest to write.")],
    policy: Annotated[str, typer.Option("--policy", help="What scans: a policy file or packaged name.")] = "",
    name: Annotated[str, typer.Option("--name", help="The index's name; default: the file's.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Scan and report; write nothing.")] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Scan documents and sign the list of their digests, owners and readers. Exits 1 when one is refused.

    A refused document is listed as such and never comes in. The sequence is one more than that of the index
    that is there.

    Example:
        stanchion retrieval index documents.jsonl --key index.key --out index.json
    """
    from stanchion.bootstrap import make_guard
    from stanchion.config import load_settings
    from stanchion.core.signatures import key_id
    from stanchion.files.keys import load_private_key
    from stanchion.guard.retrieval_files import read_documents
    from stanchion.guard.retrieval_index import build_index, load_index, sign_index, write_index

    settings = load_settings(file=ctx.obj)
    private = load_private_key(key)
    public = private.public_key()
    sequence = load_index(out, {key_id(public): public}).sequence + 1 if out.exists() else 1
    guard = make_guard(policy or settings.policy, settings)
    report = build_index(read_documents(documents), guard, name=name or out.stem, sequence=sequence)
    manifest = report.manifest
    if not dry_run:
        write_index(out, sign_index(manifest, private))
    if output_format is OutputFormat.JSON:
        print_json(
            {
                "index": manifest.digest,
                "sequence": sequence,
                "documents": len(manifest.documents),
                "refused": {one.id: one.refused for one in report.refused},
                "dry_run": dry_run,
            }
        )
    else:
        for one in report.refused:
            typer.echo(f"refused {one.id}: {', '.join(one.refused)}")
        done = "would sign" if dry_run else "signed"
        typer.echo(
            f"{done} {counted(len(manifest.documents), 'document')}, {len(report.refused)} refused, "
            f"sequence {sequence}, {manifest.digest}"
        )
    if report.refused:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="The index manifest.")],
    keys: Annotated[Path, typer.Option("--keys", help="The public key that is trusted, or a folder.")],
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Rows with id and text, as the store holds them now.")
    ] = None,
    least_sequence: Annotated[
        int, typer.Option("--least-sequence", min=0, help="Refuse an index that is older than this.")
    ] = 0,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Verify the signature of an index, and that documents are still what was indexed. Exits 1 if not.

    Example:
        stanchion retrieval verify index.json --keys index.key.pub --documents documents.jsonl
    """
    from stanchion.files.keys import load_trusted_keys
    from stanchion.guard.retrieval_files import read_texts
    from stanchion.guard.retrieval_index import changed_documents, load_index

    manifest = load_index(path, load_trusted_keys(keys), least_sequence=least_sequence)
    changed = [] if documents is None else changed_documents(manifest, read_texts(documents))
    if output_format is OutputFormat.JSON:
        print_json(
            {
                "index": manifest.digest,
                "name": manifest.name,
                "sequence": manifest.sequence,
                "documents": len(manifest.documents),
                "changed": dict(changed),
            }
        )
    else:
        for document_id, what in changed:
            typer.echo(f"{document_id}: {what}")
        typer.echo(
            f"{manifest.name}: signature good, sequence {manifest.sequence}, "
            f"{counted(len(manifest.documents), 'document')}, {manifest.digest}"
        )
    if changed:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def quarantine(
    path: Annotated[Path, typer.Argument(help="The quarantine file; it is made when it is not there.")],
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    by: Annotated[str, typer.Option("--by", help="Who decides.")],
    digest: Annotated[str, typer.Option("--digest", help="The digest of a document's text.")] = "",
    source: Annotated[str, typer.Option("--source", help="A source, or a shell-style pattern.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be added.")] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Keep documents out from now on, by digest or by source; a running guard obeys at once.

    Example:
        stanchion retrieval quarantine quarantine.json --source "wiki/*" --reason "defaced" --by jo
    """
    from stanchion.core.clock import SystemClock
    from stanchion.guard.retrieval_quarantine import QuarantineEntry, add_to_quarantine, read_quarantine

    at = SystemClock().now().isoformat()
    entry = QuarantineEntry(at=at, by=by, reason=reason, digest=digest, source=source)
    is_new = add_to_quarantine(path, entry, dry_run=dry_run)
    if output_format is OutputFormat.JSON:
        print_json({"added": is_new and not dry_run, "entries": len(read_quarantine(path)), "entry": entry})
    else:
        what = "was there already" if not is_new else "would be added" if dry_run else "added"
        typer.echo(f"{digest or source}: {what}")
