"""`gristmill tokenize`: train the tokenizer and write token shards, for other tools too; or compare tokenizers."""

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
@click.option("--verify", is_flag=True, help="Read every token shard again: checksums, and ids below the vocabulary.")
@click.option("--report", "report", is_flag=True, help="Compare tokenizers on text kept aside; write no token shards.")
@click.option(
    "--against",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="With --report: a Hugging Face tokenizer (folder or tokenizer.json) beside the recipe's; may be repeated.",
)
@click.option("--sizes", help="With --report: also train on so much text each, such as 1MiB,4MiB,16MiB.")
@click.option("--vocabularies", help="With --sizes: the numbers of ids, such as 8000,32000; default: the recipe's.")
def command(
    flags: Flags,
    kind: str | None,
    out: Path | None,
    verify: bool,
    report: bool,
    against: tuple[Path, ...],
    sizes: str | None,
    vocabularies: str | None,
) -> None:
    """Train the tokenizer and write token shards, or (--report) compare tokenizers on text that was kept aside.

    \b
    gristmill tokenize recipes/quickstart.yaml
    gristmill tokenize recipes/quickstart.yaml --to megatron --out tokens
    gristmill tokenize recipes/quickstart.yaml --report --against ../models/gpt2
    gristmill tokenize recipes/quickstart.yaml --report --sizes 1MiB,4MiB,16MiB --vocabularies 8000,32000
    """
    from recipes.cli.tokenizer_tables import compare
    from recipes.errors import RunError
    from recipes.whole import run_parts

    if (kind is None) != (out is None):
        raise RunError("--to FORMAT and --out FOLDER go together")
    if report:
        if kind is not None or verify:
            raise RunError("--report writes no token shards; ask for --to and --verify without it")
        compare(flags, against, sizes, vocabularies)
        return
    if against or sizes or vocabularies:
        raise RunError("--against, --sizes and --vocabularies say what --report compares; add --report")
    if kind is None or out is None or flags.dry_run:
        run_parts(flags, "tokenize")
    else:
        _export(flags, kind, out)
    if verify and not flags.dry_run:
        _verify(flags)


def _export(flags: Flags, kind: str, out: Path) -> None:
    """Write token shards, and documents for another tool."""
    from recipes.tokenizing.exchange import export_tokens
    from recipes.whole import refuse_later

    with flags.open_run() as run:
        refuse_later(run)
        found = export_tokens(run, kind, out)
    if flags.as_json:
        print_json(dict(found))
        return
    for name, counts in found:
        click.echo(f"{out / name}: {counts['num_documents']:,} documents, {counts['num_tokens']:,} tokens")


def _verify(flags: Flags) -> None:
    """Say that all token shards are as they were written."""
    from recipes.tokenizing.tokens import verify_shards

    with flags.open_run(quiet=True) as run:
        shards, tokens = verify_shards(run)
    if not flags.as_json:
        click.echo(f"{shards:,} token shards with {tokens:,} tokens are as they were written")
