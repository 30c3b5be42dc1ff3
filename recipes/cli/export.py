"""`gristmill export`: export the trained model to Hugging Face, checking its logits."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Export the trained model to Hugging Face, checking its logits.

    \b
    gristmill export recipes/quickstart.yaml
    gristmill export recipes/quickstart.yaml --set export.precision=fp32
    """
    from recipes.whole import run_parts

    run_parts(flags, "export")
