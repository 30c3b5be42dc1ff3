"""`gristmill whatif`: what a changed threshold would keep."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact

if TYPE_CHECKING:
    from recipes.ledger.whatif import Change


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Say what changed thresholds would keep, from the signals that are there, without running anything.

    Exact up to the next step that looks at other documents or edits text (dedup, perplexity, lines …); beyond it the
    numbers are an estimate with an interval.

    \b
    gristmill whatif recipes/quickstart.yaml --set steps.gopher.min_words=30
    """
    from recipes.errors import RunError
    from recipes.ledger.whatif import whatif

    if not flags.overrides:
        raise RunError("whatif needs a change, such as --set steps.gopher.min_words=30")
    changed = flags.load()
    with flags.open_run_as_written() as run:
        changes = whatif(run, changed)
    if flags.as_json:
        print_json([asdict(change) for change in changes])
        return
    click.echo(f"{'source':<20} {'kept now':>10} {'then':>10} {'':>8} {'characters':>10} {'tokens':>9} {'':>8}")
    for change in changes:
        _say(change)


def _say(change: Change) -> None:
    sign = change.kept_after - change.kept_before
    share = change.characters_after / change.characters_before - 1 if change.characters_before else 0.0
    tokens = change.tokens_after - change.tokens_before
    click.echo(
        f"{change.source:<20} {change.kept_before:>10,} {change.kept_after:>10,} {sign:>+8,} {share:>+10.2%} "
        f"{compact(change.tokens_after):>9} {'-' if tokens < 0 else '+'}{compact(abs(tokens)):>7}"
    )
    if not change.exact:
        click.echo(
            f"    estimate, {change.kept_low:,} to {change.kept_high:,}: a later step looks at what is kept here"
        )
    for word, counted in (("newly kept", change.newly_kept), ("newly dropped", change.newly_dropped)):
        for reason, count in list(counted.items())[:5]:
            click.echo(f"    {word} {count:>8,}  {reason}")
    for one in change.border:
        click.echo(f"    changes sides: {one['content_id'][:12]}  {one['shard']} row {one['row']}  {one['reason']}")
