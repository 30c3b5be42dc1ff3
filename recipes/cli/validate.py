"""`gristmill validate`: every mistake of a recipe at once, without touching data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import several

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curation.passes import ShardInputs
    from recipes.run import Run
    from recipes.schema.located import Located


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
    from recipes.checks.paths import path_problems
    from recipes.checks.rules import rule_problems
    from recipes.curating.compiling import compile_recipe
    from recipes.schema.located import RecipeErrors

    if wrong := [*path_problems(recipe), *rule_problems(recipe)]:
        raise RecipeErrors(wrong)
    from recipes.schema.validation import not_yet

    later = not_yet(recipe)
    if not later:
        compile_recipe(recipe, opens=False)  # finds steps that name a signal or column which nothing gives
    held = _open_sources(flags) if look_at_data else {}
    if flags.as_json:
        found = {"valid": True, "sources": sorted(recipe.sources), "not_yet": [str(message) for message in later]}
        print_json(found | ({"data": held} if look_at_data else {}))
        return
    for name, told in held.items():
        click.echo(f"source {name}: {told}")
    click.echo(f"{flags.recipe}: valid; {several(len(recipe.sources), 'source')}, {several(len(recipe.steps), 'step')}")
    for message in later:
        click.echo(str(message))


def _open_sources(flags: Flags) -> dict[str, str]:
    """Read the first rows of each source; what each holds, by name.

    Raises:
        RecipeErrors: for columns that a recipe names and the files lack.
        RunError: where a source cannot be opened; what the others hold is told first.
    """
    from curation.source import SourceError, UnreadableShard
    from recipes.curating.compiling import compile_recipe
    from recipes.errors import RunError
    from recipes.schema.located import RecipeErrors

    held: dict[str, str] = {}
    failed: dict[str, str] = {}
    wrong: list[Located] = []
    with flags.open_run(quiet=True) as run:
        ready = run.recipe.token_sources()
        for name in sorted(run.recipe.sources):
            try:
                held[name] = _ready(run, name) if name in ready else _text(run, name)
            except RecipeErrors as error:
                wrong += error.errors
            except (SourceError, UnreadableShard, RunError) as error:
                failed[name] = str(error).removeprefix(f"source {name}: ")
        if wrong or failed:
            for name, told in (held | failed).items():
                click.echo(f"source {name}: {told}", err=flags.as_json or name in failed)
        if wrong:
            raise RecipeErrors(wrong)
        if failed:
            raise RunError("not every source can be opened")
        compile_recipe(run.recipe)  # what is ordered or split by a column that only the files tell
    return held


def _text(run: Run, name: str) -> str:
    """What the first rows of a source of text hold.

    Raises:
        RecipeErrors: where the column of the text is not there.
    """
    from curation.source import column_names, read_shard
    from recipes.curating.curate import plan_sources

    state = plan_sources(run, [name]).sources[name]
    first = state.shards[0]
    columns = column_names(first.path, first.reader)
    _check_fields(run, name, first, columns)
    batch = next(read_shard(first.path, first.reader, batch_bytes=1 << 20), None)
    rows = 0 if batch is None else batch.num_rows
    unread = 0 if batch is None else batch.column("text").null_count
    size = sum(Path(shard.path).stat().st_size for shard in state.shards)
    return (
        f"{several(len(state.shards), 'shard')}, {size / 1e6:.1f} MB, {first.reader.format}; "
        f"of the first {several(rows, 'row')} {unread} cannot be read"
        + (f"; columns: {', '.join(columns)}" if columns else "")
        + (f"; {told}" if (told := state.told_unopened()) else "")
    )


def _check_fields(run: Run, name: str, first: ShardInputs, columns: Sequence[str]) -> None:
    """Refuse `fields` that name a column which the first shard lacks, and a shard without a column of text.

    Records of JSON may leave other columns out, so that what the first ones have tells nothing of them.
    """
    from curation.fields import did_you_mean
    from recipes.schema.located import RecipeErrors
    from recipes.schema.validation import located_problems

    fields = {"text": "text"} | {str(role): column for role, column in run.recipe.sources[name].fields.items()}
    there = f"its columns are {', '.join(columns)}"
    sure = ("text",) if first.reader.format in ("json", "jsonl") else tuple(fields)
    wrong = [
        (
            ("sources", name, "fields", role),
            column,
            f"{first.shard} has no such column{did_you_mean(column, columns, limit=0)}; {there}",
        )
        for role, column in sorted(fields.items())
        if columns and column not in columns and role in sure
    ]
    if wrong:
        raise RecipeErrors(located_problems(run.recipe, wrong))


def _ready(run: Run, name: str) -> str:
    """What a source of ready tokens holds: its files, all their parts, and the columns beside the tokens."""
    from mixing.token_source import parts_of
    from recipes.errors import RunError
    from recipes.tokenizing.token_files import check_split, token_columns, token_files

    kind = str(run.recipe.sources[name].format)
    files = token_files(run.recipe, name)
    missing = [str(part) for file in files for part in parts_of(kind, file.absolute) if not part.is_file()]
    if missing:
        raise RunError(f"{missing[0]} is missing")
    check_split(run.recipe, name)
    beside = ", ".join(token_columns(run.recipe, name)) or "none"
    size = sum(file.size_bytes for file in files)
    return f"{several(len(files), 'shard')}, {size / 1e6:.1f} MB, ready tokens ({kind}); columns beside them: {beside}"
