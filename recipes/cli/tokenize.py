"""`gristmill tokenize`: train the tokenizer and write token shards, for other tools too where that is asked for."""

from __future__ import annotations

from pathlib import Path

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option(
    "--to",
    "kind",
    type=click.Choice(["ds", "megatron", "litdata", "parquet"]),
    help="Also write each domain's documents for datatrove, Megatron-LM, litdata, or Hugging Face datasets.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="With --to: the folder, new or empty.")
def command(flags: Flags, kind: str | None, out: Path | None) -> None:
    """Train the tokenizer and write token shards.

    \b
    gristmill tokenize recipes/quickstart.yaml
    gristmill tokenize recipes/quickstart.yaml --to megatron --out tokens
    """
    from recipes.errors import RunError
    from recipes.whole import refuse_later, run_parts

    if (kind is None) != (out is None):
        raise RunError("--to FORMAT and --out FOLDER go together")
    if kind is None or out is None or flags.dry_run:
        run_parts(flags, "tokenize")
        return
    from recipes.exchange import export_tokens

    with flags.open_run() as run:
        refuse_later(run)
        found = export_tokens(run, kind, out)
    if flags.as_json:
        print_json(dict(found))
        return
    for name, counts in found:
        click.echo(f"{out / name}: {counts['num_documents']:,} documents, {counts['num_tokens']:,} tokens")
