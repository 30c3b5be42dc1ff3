"""`gristmill validate`: every mistake of a recipe at once, without touching data."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option("--data", "look_at_data", is_flag=True, help="Also open each source: its files, format and columns.")
def command(flags: Flags, look_at_data: bool) -> None:
    """Name every mistake of a recipe at once, with file, line and fix, without touching data.

    \b
    gristmill validate recipes/quickstart.yaml
    gristmill validate recipes/quickstart.yaml --data
    """
    recipe = flags.load()
    from recipes.curate import compile_recipe
    from recipes.located import RecipeErrors
    from recipes.rule_checks import rule_problems

    if wrong := rule_problems(recipe):
        raise RecipeErrors(wrong)
    from recipes.validation import not_yet

    later = not_yet(recipe)
    if not later:
        compile_recipe(recipe)  # finds steps that name a signal or column which nothing gives
    if flags.as_json:
        print_json({"valid": True, "sources": sorted(recipe.sources), "not_yet": [str(message) for message in later]})
    else:
        click.echo(f"{flags.recipe}: valid; {len(recipe.sources)} sources, {len(recipe.steps)} steps")
        for message in later:
            click.echo(str(message))
    if look_at_data:
        _open_sources(flags)


def _open_sources(flags: Flags) -> None:
    """Read the first rows of each source and say what they hold."""
    from curation.source import SourceError, UnreadableShard, read_shard
    from recipes.curate import plan_sources
    from recipes.errors import RunError

    failed = False
    with flags.open_run() as run:
        for name in sorted(run.recipe.sources):
            try:
                state = plan_sources(run, [name]).sources[name]
                first = state.shards[0]
                batch = next(read_shard(first.path, first.reader, batch_bytes=1 << 20), None)
            except (SourceError, UnreadableShard, RunError) as error:
                failed = True
                told = str(error).removeprefix(f"source {name}: ")
                click.echo(f"source {name}: {told}", err=True)
                continue
            rows = 0 if batch is None else batch.num_rows
            unread = 0 if batch is None else batch.num_rows - batch.column("text").drop_null().__len__()
            size = sum(Path(shard.path).stat().st_size for shard in state.shards)
            click.echo(
                f"source {name}: {len(state.shards)} shards, {size / 1e6:.1f} MB, {first.reader.format}; "
                f"of the first {rows} rows {unread} cannot be read"
            )
    if failed:
        raise RunError("not every source can be opened")
    sys.stdout.flush()
