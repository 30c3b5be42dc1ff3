"""`gristmill fetch`: the one verb that uses the network."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    r"""Bring the text that a recipe names in the catalogue, once, pinned by hash.

    \b
    gristmill fetch recipes/quickstart.yaml
    """
    from pathlib import Path

    from recipes.fetch import fetch

    recipe = flags.load()
    raw = Path(recipe.execution.raw)
    names = sorted(
        path.removeprefix("catalogue:")
        for source in recipe.sources.values()
        for path in source.path
        if path.startswith("catalogue:")
    )
    if not names:
        click.echo(f"{flags.recipe}: every source is a file; nothing to fetch")
        return
    for name in names:
        folder = fetch(name, raw)
        click.echo(f"{name}: {folder}")
