"""`gristmill diff`: two runs compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from recipes.cli.options import Flags, print_json, shared_flags

# Sections whose entries have names, with a value that every entry has.
_ALWAYS = {"sources": "path", "steps": "kind", "schedule": "tokens"}


@click.command()
@shared_flags
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(flags: Flags, other: Path) -> None:
    """Compare two curated runs: values that differ, and what is newly kept and dropped, by source and rule.

    \b
    gristmill diff recipes/quickstart.yaml my_quickstart.yaml
    """
    from recipes.ledger.queries import open_ledger
    from recipes.ledger.run_diff import differences, with_texts

    with flags.open_run() as first, Flags(other).open_run() as second:
        found = differences(first, second)
        with_texts(found, open_ledger(second), 160)
    if flags.as_json:
        print_json(found)
        return
    for line in config_lines(found["config"], str(flags.recipe), str(other)):
        click.echo(line)
    for name, source in found["sources"].items():
        (kept, kept_new), (size, size_new) = source["kept"], source["characters"]
        click.echo(
            f"{name}: {kept:,} → {kept_new:,} documents kept ({kept_new - kept:+,}), {size_new - size:+,} characters, "
            f"about {source['tokens'][1] - source['tokens'][0]:+,} tokens"
        )
        for word in ("newly_kept", "newly_dropped"):
            for reason, count in list(source[word].items())[:8]:
                click.echo(f"    {word.replace('_', ' ')} {count:>8,}  {reason}")
        for one in source["examples"]:
            verdict = "kept now" if one["kept"] else "dropped now"
            click.echo(f"    {verdict}: {one['content_id'][:12]}  {one['shard']} row {one['row']}  {one['reason']}")
            if one["text"]:
                click.echo(f"        “{one['text']}”")


def config_lines(config: Mapping[str, Sequence[str | None]], first: str, second: str) -> Iterator[str]:
    """A line for each value that differs; one for a source, step or phase that only one recipe has.

    Args:
        config: path -> its value in both recipes, None where one has none.
        first: what the first recipe is called.
        second: what the second is.
    """
    alone = {
        path.rpartition(".")[0]: second if old is None else first
        for path, (old, new) in config.items()
        if (old is None or new is None) and _ALWAYS.get(path.split(".")[0]) == path.split(".")[-1]
    }
    for path, (old, new) in config.items():
        owner = ".".join(path.split(".")[:2])
        if owner not in alone:
            yield f"{path}: {'nothing' if old is None else old} → {'nothing' if new is None else new}"
    for owner, recipe in alone.items():
        yield f"{owner}: only in {recipe}"
