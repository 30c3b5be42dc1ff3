"""`gristmill fetch`: the one verb that uses the network."""

from __future__ import annotations

from pathlib import Path

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import Narrator


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Bring the text that a recipe names in the catalogue, once, pinned by hash.

    \b
    gristmill fetch recipes/quickstart.yaml
    """
    from recipes.errors import RunError
    from recipes.texts.fetch import fetch_model, fetch_source, needed

    recipe = flags.load()
    raw, narrator = Path(recipe.execution.raw), Narrator(flags.as_json)
    wanted = [path for source in recipe.sources.values() for path in source.path if path.startswith("catalogue:")]
    missing = needed(wanted, raw)
    told = {"folder": str(raw), "wanted": wanted, "missing": [entry.name for entry in missing]}
    if flags.dry_run:
        if flags.as_json:
            print_json(told)
        else:
            click.echo("\n".join(f"{entry.name}: {entry.about}" for entry in missing) or "everything is here")
        return
    for entry in missing:
        size = entry.package.size_bytes if entry.package else 0
        with narrator.bar(entry.name, size or 1, in_bytes=True) as advance:
            folder = fetch_source(entry.name, raw, lambda received: advance(completed=received))
        narrator.say(f"  {entry.name:<20} {entry.about} ({entry.licence}): {folder}")
    if any(step.kind == "language" for step in recipe.steps):
        try:
            fetch_model("lid176")
        except RunError as error:
            narrator.say(f"  language model: {error}")
    narrator.say(f"{len(wanted)} texts of the catalogue are below {raw}")
    if flags.as_json:
        print_json({**told, "missing": [], "fetched": told["missing"]})
