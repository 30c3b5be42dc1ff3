"""`gristmill evaluate`: measure held-out loss per domain at the last checkpoint."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Measure held-out loss per domain at the last checkpoint.

    As training measures it on the way: in its precision, with its document masks, on at most 64 windows a domain; on a
    GPU where there is one.

    \b
    gristmill evaluate recipes/quickstart.yaml
    """
    from recipes.whole import run_parts

    run_parts(flags, "evaluate")
