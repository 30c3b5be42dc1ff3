"""`gristmill ablate`: proxies, surrogates, chosen weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option(
    "--runs",
    "table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Fit this table of runs (runs.csv) instead of training proxies.",
)
def command(flags: Flags, table: Path | None) -> None:
    """Train the proxies that are missing, fit the surrogates, choose weights and say what they rest on.

    \b
    gristmill ablate recipes/quickstart.yaml
    gristmill ablate recipes/quickstart.yaml --set ablation.runs.dirichlet=24
    gristmill ablate recipes/quickstart.yaml --runs runs.csv
    gristmill ablate recipes/quickstart.yaml --dry-run
    """
    from recipes.ablate import ablate, analyse_table, announce
    from recipes.show import planned_stages
    from recipes.whole import show_plan

    with flags.open_run(brief=True) as run:
        if table is not None:
            analysis = analyse_table(run, table)
        elif flags.dry_run:
            if any(stage.missing() for stage in planned_stages(run)):
                show_plan(run, flags.as_json)  # the design is not known before the domains are
            else:
                announce(run)
            return
        else:
            analysis = ablate(run).analysis
    if flags.as_json:
        print_json(analysis)
        return
    _show(analysis)


def _show(analysis: dict[str, Any]) -> None:
    click.echo(f"\n{'domain':<24} {'natural':>8} {'chosen':>8}   interval")
    intervals = analysis.get("weights_interval", {})
    for domain in sorted(analysis["chosen"]):
        low, high = intervals.get(domain, (None, None))
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        click.echo(
            f"{domain:<24} {analysis['natural'].get(domain, 0):>8.3f} {analysis['chosen'][domain]:>8.3f}   {interval}"
        )
    for note in analysis["notes"]:
        click.echo(note)
