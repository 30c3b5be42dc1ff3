"""`gristmill report`: write the HTML report of what has been done so far."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Write the HTML report of what has been done so far.

    \b
    gristmill report recipes/quickstart.yaml
    """
    from recipes.whole import run_parts

    run_parts(flags, "report")
