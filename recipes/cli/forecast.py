"""`gristmill forecast`: what a run will come to, before it is spent."""

from __future__ import annotations

from dataclasses import asdict

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Estimate documents, tokens, hours and bytes from a sample, before spending them.

    \b
    gristmill forecast recipes/quickstart.yaml --sample 0.1
    """
    from recipes.forecasting import forecast

    sample = flags.sample or 0.01
    with flags.open_run_unsampled() as run:
        found = forecast(run, sample, flags.overrides)
    if flags.as_json:
        print_json(asdict(found))
        return
    click.echo(f"{'source':<20} {'rows':>9} {'kept':>9}   {'95 % interval':<20} {'bytes':>7} {'tokens':>7}")
    for source in found.sources:
        interval = f"{source.kept_low:,} to {source.kept_high:,}"
        click.echo(
            f"{source.source:<20} {source.rows:>9,} {source.kept:>9,}   {interval:<20} "
            f"{compact(source.bytes):>7} {compact(source.tokens):>7}"
        )
        for reason, count in list(source.drops.items())[:3]:
            click.echo(f"    dropped {count:>9,}  {reason}")
    click.echo(
        f"curation: {found.cpu_hours:.2f} core hours, {compact(found.disk_bytes)}B in {found.files} tasks; "
        f"from a sample of {found.sample:g}, start-up included"
    )
