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
@click.option(
    "--losses",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --runs: losses of those runs that stand in a file of their own, as RegMix and Olmix write them.",
)
@click.option(
    "--natural",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --runs: natural weights of the table's domains, as JSON, YAML or CSV (domain,weight).",
)
@click.option("--partial", is_flag=True, help="Train nothing: analyse the proxies that are finished by now.")
@click.option(
    "--rows",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Train nothing: write the rows of the proxies that are finished by now to this CSV file.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --runs or --partial: write figures and tables of the analysis as this HTML page.",
)
@click.option(
    "--earlier",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Train nothing: write finished proxies of other designs of this swarm to this CSV, for ablation.evidence.",
)
def command(
    flags: Flags,
    table: Path | None,
    losses: Path | None,
    natural: Path | None,
    partial: bool,
    rows: Path | None,
    page: Path | None,
    earlier: Path | None,
) -> None:
    """Train the proxies that are missing, fit the surrogates, choose weights and say what they rest on.

    \b
    gristmill ablate recipes/quickstart.yaml
    gristmill ablate recipes/quickstart.yaml --set ablation.runs.dirichlet=24
    gristmill ablate recipes/quickstart.yaml --runs runs.csv --page ablation.html
    gristmill ablate recipes/quickstart.yaml --runs ratios.csv --losses metrics.csv --natural natural.json
    gristmill ablate recipes/quickstart.yaml --rows so_far.csv --partial
    gristmill ablate recipes/quickstart.yaml --dry-run
    """
    from recipes.ablation.ablate import ablate

    if table is not None and (partial or rows is not None):
        raise click.UsageError("--runs reads a table of runs; --partial and --rows are about this recipe's own proxies")
    if losses is not None and table is None:
        raise click.UsageError("--losses goes with --runs, the table of the runs' weights")
    if natural is not None and table is None:
        raise click.UsageError(
            "--natural goes with --runs; the recipe's own sources say what is natural for its proxies"
        )
    if page is not None and table is None and not partial:
        raise click.UsageError("--page goes with --runs or --partial; `gristmill report` shows a finished ablation")
    with flags.open_run(brief=True) as run:
        if flags.dry_run:
            _announce(run, flags)
            return
        if earlier is not None:
            from recipes.ablation.ablate import left_over_of
            from recipes.ablation.left_over import write_left_over
            from recipes.ablation.study import prepare

            number = write_left_over(left_over_of(run, prepare(run)), earlier)
            click.echo(f"{earlier}: {number} proxies", err=flags.as_json)
            return
        if rows is not None:
            from recipes.ablation.runs_table import write_rows

            click.echo(f"{rows}: {write_rows(run, rows).words()}", err=flags.as_json)
            if not partial:
                return
        if table is not None or partial:
            analysis = _analysed(run, table, losses, natural)
            if page is not None:
                from recipes.report.page import write_ablation

                click.echo(write_ablation(run, analysis, page), err=flags.as_json)
        else:
            analysis = ablate(run).analysis
            run.write_summary(done=True)
    if flags.as_json:
        print_json(analysis)
        return
    _show(analysis)


def _analysed(run: Any, table: Path | None, losses: Path | None, natural: Path | None) -> dict[str, Any]:
    """An analysis for which nothing is trained; what a table cannot say is an error of its user's."""
    from mixing.ablation.objective import ObjectiveError
    from mixing.ablation.preparation import TableError
    from mixing.ablation.region import BoundsError
    from mixing.ablation.runs import RunsError
    from mixing.ablation.surrogates import SurrogateError
    from recipes.ablation.runs_table import analyse_finished, analyse_table
    from recipes.errors import RunError

    try:
        return analyse_finished(run) if table is None else analyse_table(run, table, losses, natural)
    except (RunsError, TableError, ObjectiveError, BoundsError, SurrogateError) as error:
        raise RunError(str(error)) from error


def _announce(run: Any, flags: Flags) -> None:
    """Say what would be trained; the design is not known before the domains are."""
    from recipes.ablation.ablate import announce
    from recipes.show import text_is_made
    from recipes.whole import show_plan

    if flags.as_json or not text_is_made(run):
        show_plan(run, flags.as_json, "ablate")
    else:
        announce(run)


def _show(analysis: dict[str, Any]) -> None:
    wide = max(24, *(len(name) for name in analysis["chosen"]))
    intervals, optimum = analysis.get("weights_interval", {}), analysis.get("optimum") or {}
    kept = bool(optimum) and analysis["chosen"] != optimum  # the interval is of weights that were not chosen
    beside = f" {'optimum':>8}" if kept else ""
    click.echo(f"\n{'domain':<{wide}} {'natural':>8} {'chosen':>8}{beside}   interval of the optimum")
    for domain in sorted(analysis["chosen"]):
        low, high = intervals.get(domain, (None, None))
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        natural, chosen = analysis["natural"].get(domain, 0), analysis["chosen"][domain]
        beside = f" {optimum.get(domain, 0):>8.3f}" if kept else ""
        click.echo(f"{domain:<{wide}} {natural:>8.3f} {chosen:>8.3f}{beside}   {interval}")
    if analysis.get("confirmation"):
        _show_confirmation(analysis["confirmation"])
    for note in analysis["notes"]:
        click.echo(note)


def _show_confirmation(confirmed: dict[str, Any]) -> None:
    """Change of the objective and of each domain against natural weights, arm by arm, with 95 % intervals."""
    from mixing.ablation.objective import percent

    for arm in confirmed["arms"]:
        if "objective" not in arm:
            continue
        title, measured = f"{arm['name']} against natural", sorted(arm["domains"].items())
        wide = max(24, len(title), *(len(name) for name, _ in measured))
        click.echo(f"\n{title:<{wide}} {'change':>8}   95% interval over {len(arm['seeds'])} seeds")
        for name, one in [("objective", arm["objective"]), *measured]:
            interval = "" if one["high"] is None else f"{percent(one['low'])} to {percent(one['high'])}"
            click.echo(f"{name:<{wide}} {percent(one['difference']):>8}   {interval}")
    click.echo("")
