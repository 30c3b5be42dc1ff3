"""`gristmill whatif`: what a changed threshold would keep."""

from __future__ import annotations

from dataclasses import asdict

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Say what changed thresholds would keep, from the signals that are there, without running anything.

    Exact up to the next global step; beyond it the numbers are called estimates.

    \b
    gristmill whatif recipes/quickstart.yaml --set steps.gopher.min_words=30
    """
    from recipes.errors import RunError
    from recipes.queries import whatif

    if not flags.overrides:
        raise RunError("whatif needs a change, such as --set steps.gopher.min_words=30")
    changed = flags.load()
    with flags.open_run_as_written() as run:
        changes = whatif(run, changed)
    if flags.as_json:
        print_json([asdict(change) for change in changes])
        return
    click.echo(f"{'source':<20} {'kept now':>10} {'then':>10} {'':>8}  characters")
    for change in changes:
        sign = change.kept_after - change.kept_before
        share = change.characters_after / change.characters_before - 1 if change.characters_before else 0.0
        exact = "" if change.exact else "  estimate: a global step follows"
        click.echo(
            f"{change.source:<20} {change.kept_before:>10,} {change.kept_after:>10,} {sign:>+8,}  {share:+.2%}{exact}"
        )
        for word, counted in (("newly kept", change.newly_kept), ("newly dropped", change.newly_dropped)):
            for reason, count in list(counted.items())[:5]:
                click.echo(f"    {word} {count:>8,}  {reason}")
        for shard, row, content in change.border:
            click.echo(f"    changes sides: {content[:12]}  {shard} row {row}")
