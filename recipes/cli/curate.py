"""`gristmill curate`: curate: read, measure, decide, deduplicate."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Curate: read, measure, decide, deduplicate.

    \b
    gristmill curate recipes/quickstart.yaml
    gristmill curate recipes/quickstart.yaml --set steps.gopher.min_words=30
    """
    from recipes.whole import run_parts

    run_parts(flags, "curate")
