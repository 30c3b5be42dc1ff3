"""`gristmill run`: do all that a recipe asks for and is not there yet."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Do all that a recipe asks for and is not there yet; say what is reused.

    \b
    gristmill run recipes/quickstart.yaml
    gristmill run recipes/quickstart.yaml --until tokenize
    gristmill run recipes/quickstart.yaml --dry-run
    """
    from recipes.whole import run_all, show_plan

    with flags.open_run() as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, flags.until or "report")
        else:
            run_all(run, flags.until, flags.as_json)
