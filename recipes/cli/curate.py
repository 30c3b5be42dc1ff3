"""`gristmill curate`: documents read, measured, decided, deduplicated."""

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
    with flags.open_run() as run:
        run.curation  # noqa: B018  making it is the point
