"""`gristmill tokenize`: train the tokenizer and write token shards."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Train the tokenizer and write token shards.

    \b
    gristmill tokenize recipes/quickstart.yaml
    """
    from recipes.whole import run_parts

    run_parts(flags, "tokenize")
