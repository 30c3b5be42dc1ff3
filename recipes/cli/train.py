"""`gristmill train`: train the model, continuing from the newest whole checkpoint."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Train the model, continuing from the newest whole checkpoint.

    \b
    gristmill train recipes/quickstart.yaml
    gristmill train recipes/quickstart.yaml --set training.learning_rate.peak=3e-3
    """
    from recipes.whole import run_parts

    run_parts(flags, "train")
