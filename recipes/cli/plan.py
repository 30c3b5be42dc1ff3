"""`gristmill plan`: what the schedule draws from each domain, before anything trains."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
    from mixing.plan_record import Plan


@click.command()
@shared_flags
@click.option(
    "--diff",
    "old",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An older plan (its JSON): say what is unchanged before which position, and what differs after.",
)
def command(flags: Flags, old: Path | None) -> None:
    """Show documents, tokens, epochs and unique share of each domain and phase, before anything trains.

    \b
    gristmill plan recipes/quickstart.yaml
    gristmill plan recipes/quickstart.yaml --set schedule.main.tokens=4M
    gristmill plan recipes/quickstart.yaml --diff old.plan.json
    """
    from mixing.plan_table import table, tree
    from recipes.curate import ALL
    from recipes.train import read_plan
    from recipes.whole import show_plan

    with flags.open_run(brief=True) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json)
            return
        stage = run.plan
        plan = read_plan(stage)
    if flags.as_json:
        print_json(
            {"plan": plan.id, "file": stage.file(ALL, ".plan.json"), "rows": [asdict(row) for row in table(plan)]}
        )
        return
    click.echo(tree(plan))
    click.echo(
        f"\n{'phase':<12} {'domain':<22} {'share':>7} {'documents':>11} {'characters':>12} "
        f"{'tokens':>12} {'epochs':>7} unique"
    )
    for row in table(plan):
        click.echo(
            f"{row.phase:<12} {row.domain:<22} {row.share:>7.2%} {row.num_documents:>11,} {row.num_characters:>12,} "
            f"{row.num_tokens:>12,} {row.epochs:>7.2f} {row.unique_share:>6.0%}"
        )
    if old is not None:
        _show_difference(plan, old)
    click.echo(f"\n{stage.file(ALL, '.plan.json')}")


def _show_difference(plan: Plan, old: Path) -> None:
    from mixing.plan_diff import diff
    from mixing.plan_record import Plan

    click.echo(f"\n{diff(Plan.from_json(old.read_text(encoding='utf-8')), plan)}")
