"""`gristmill scale`: a ladder of sizes and its scaling laws."""

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
    help="Fit this table (num_parameters, num_tokens, loss) instead of training a ladder.",
)
def command(flags: Flags, table: Path | None) -> None:
    """Train the sizes of `scaling:` that are missing, fit scaling laws, and say what they foretell and how surely.

    \b
    gristmill scale recipe.yaml
    gristmill scale recipe.yaml --dry-run           sizes, tokens, operations and hours
    gristmill scale recipe.yaml --runs sizes.csv
    """
    from mixing.scaling.table import ScalingError
    from recipes.ablation.scaling import analyse_file
    from recipes.errors import RunError

    with flags.open_run(brief=True) as run:
        if flags.dry_run:
            _announce(run, flags)
            return
        try:
            found = run.scaling if table is None else analyse_file(table, run.recipe.seed)
        except ScalingError as error:
            raise RunError(str(error)) from error
        if table is None:
            run.write_summary(done=True)
    if flags.as_json:
        print_json(found)
        return
    _show(found)


def _announce(run: Any, flags: Flags) -> None:
    """Say what the ladder would cost; its sizes are not known before the tokenizer is."""
    from recipes.ablation.scaling import announce_ladder, rungs
    from recipes.show import text_is_made
    from recipes.whole import show_plan

    if run.recipe.scaling is None or not text_is_made(run):
        show_plan(run, flags.as_json, "scale")
    else:
        announce_ladder(run, [(rung, None) for rung in rungs(run)])


def _show(found: dict[str, Any]) -> None:
    click.echo(f"\n{'run':<28} {'parameters':>12} {'tokens':>10} {'FLOPs':>9} {'loss':>7} {'law':>7}")
    for one in found["runs"]:
        law = "" if one["predicted"] is None else f"{one['predicted']:.3f}"
        click.echo(
            f"{one['name']:<28} {one['parameters']:>12.4g} {one['tokens']:>10.3g} {one['flops']:>9.2g} "
            f"{one['loss']:>7.3f} {law:>7}"
        )
    for name, law in found["laws"].items():
        click.echo(
            f"\n{name}: {law['restarts']['agreeing']:.0%} of {law['restarts']['starts']} starts end at the same place"
        )
        for parameter in [p for p in law["parameters"] if not p.startswith("log_")]:
            low, high = law["intervals"].get(parameter, (None, None))
            interval = "" if low is None else f"   {low:.4g} to {high:.4g}"
            click.echo(f"  {parameter:<10} {law['parameters'][parameter]:>10.4g}{interval}")
        if law["target"]:
            low, high = law["target"]["interval"]
            interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
            click.echo(
                f"  the recipe's own model: {law['target']['loss']:.3f} nats{interval}, "
                f"{law['target']['times_larger']:.3g} times the operations of the largest run"
            )
    for row in found["optimal"]:
        click.echo(
            f"{'target ' if row['is_target'] else ''}budget {row['flops']:.2g} FLOPs: {row['parameters']:.3g} "
            f"parameters, {row['tokens']:.3g} tokens "
            f"({row['tokens_per_parameter']:.0f} a parameter), loss {row['loss']:.3f}"
        )
    for note in found["notes"]:
        click.echo(note)
