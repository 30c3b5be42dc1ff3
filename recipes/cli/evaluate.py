"""`gristmill evaluate`: measure held-out loss per domain at the last checkpoint."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Measure held-out loss per domain at the last checkpoint.

    \b
    gristmill evaluate recipes/quickstart.yaml
    """
    from recipes.whole import run_parts

    run_parts(flags, "evaluate")
