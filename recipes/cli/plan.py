"""`gristmill plan`: what the schedule draws from each domain, before anything trains."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mixing.plan_record import Plan
    from recipes.run import Run

_MOST_ROWS = 400  # of the table in the terminal; the page's tables have all


@click.command()
@shared_flags
@click.option(
    "--diff",
    "old",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An older plan (its JSON, or the recipe of a run that has its text and weights): say what is unchanged before "
    "which position, and what differs.",
)
@click.option(
    "--sizes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Plan without data: a CSV of domain,tokens[,documents,bytes,characters] instead of the recipe's sources.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the plan (JSON) here.")
def command(flags: Flags, old: Path | None, sizes: Path | None, out: Path | None) -> None:
    """Show what is drawn from each domain, phase and pattern, and over training, before anything trains.

    Proxies are never trained for it: where an ablation has not chosen the weights of a phase yet, natural weights stand
    in their place, marked so, and the exit code is 3.

    \b
    gristmill plan recipes/quickstart.yaml
    gristmill plan recipes/quickstart.yaml --set schedule.main.tokens=4M
    gristmill plan recipes/quickstart.yaml --diff old.plan.json
    gristmill plan recipes/examples/llammlein_plan.yaml --sizes recipes/examples/llammlein_sizes.csv
    """
    from mixing.plan_table import table
    from recipes.errors import NotYet
    from recipes.whole import show_plan

    with flags.open_run(brief=True, trains=False) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "plan")
            return
        try:
            plan, file = _plan(run, sizes)
        except NotYet as untrained:
            _show_provisional(run, sizes, flags.as_json, untrained)
            raise
        groups = _groups(run, plan)
        if out is not None:
            out.write_text(plan.to_json(), encoding="utf-8")
            file = out
        before = None if old is None else _older(old)
        if flags.as_json:
            rows = [asdict(row) for row in table(plan, groups)]
            print_json(
                {"plan": plan.id, "file": file, "warnings": plan.warnings, "rows": rows, **_difference(before, plan)}
            )
            return
        _show(plan, groups)
        if before is not None:
            click.echo("\n" + "\n".join(_difference(before, plan)["difference"]))
        click.echo(f"\n{_page(run, plan, groups)}")
        if file is not None:
            click.echo(file)


def _plan(run: Run, sizes: Path | None) -> tuple[Plan, str | Path | None]:
    """The recipe's plan and its file; of simulated sizes, which have no file until `--out` names one."""
    from recipes.curating.curate import ALL
    from recipes.pretraining.train import read_plan

    if sizes is None:
        return read_plan(run.plan), run.plan.file(ALL, ".plan.json")
    from recipes.errors import NotYet

    if asked := run.recipe.open_phases():
        raise NotYet(
            f"{run.recipe.path}: phase {', '.join(asked)}: an ablation chooses its weights, and simulated sizes hold "
            "no text to train proxies on; write weights, or `gristmill ablate` over its own sources"
        )
    return _simulated(run, sizes), None


def _simulated(run: Run, sizes: Path) -> Plan:
    from mixing.simulated_sizes import read_sizes
    from recipes.ablation.provisional import provisional_plan
    from recipes.errors import RunError

    try:
        return provisional_plan(run, read_sizes(sizes))
    except (ValueError, RunError) as error:  # sizes, patterns, weights and budgets: each says what to mend
        raise RunError(f"over {sizes}: {error}") from error


def _show_provisional(run: Run, sizes: Path | None, as_json: bool, untrained: Exception) -> None:
    """The plan at natural weights, marked so: supply, caps and the other phases are as they will be."""
    from mixing.plan_table import table
    from recipes.ablation.provisional import provisional_plan

    plan = provisional_plan(run) if sizes is None else _simulated(run, sizes)
    groups, told = _groups(run, plan), ", ".join(run.recipe.open_phases())
    if as_json:
        rows = [asdict(row) for row in table(plan, groups)]
        print_json({"plan": None, "provisional": str(untrained), "warnings": plan.warnings, "rows": rows})
        return
    _show(plan, groups)
    click.echo(f"\nNOT THE PLAN YET: phase {told} stands at natural weights above, until the ablation has chosen.\n")


def _groups(run: Run, plan: Plan) -> dict[str, list[str]]:
    """Patterns of the recipe's weights and caps that cover several domains."""
    from mixing.plan_table import groups_of

    patterns = {pattern for phase in run.recipe.schedule for pattern in phase.weights.shares}
    return groups_of(patterns | set(run.recipe.domains.max_epochs), [domain.name for domain in plan.domains])


def _older(path: Path) -> Plan:
    """An older plan: its JSON, or that of another recipe, of which nothing is trained and no text is made."""
    from mixing.plan_record import Plan, PlanError
    from recipes.errors import NotYet, RunError

    if path.suffix in {".yaml", ".yml"}:
        from recipes.pretraining.train import read_plan
        from recipes.run import Run
        from recipes.schema.recipe import load_recipe
        from recipes.show import text_is_made

        with Run.open(load_recipe(path), silent=True) as run:
            run.trains = False
            if not text_is_made(run):
                raise NotYet(f"--diff: {path} has no plan yet, nor its text; `gristmill plan {path}` makes both")
            try:
                return read_plan(run.plan)
            except NotYet as untrained:
                raise NotYet(f"--diff: {path} has no plan yet: {untrained}") from untrained
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except PlanError as error:
        raise RunError(f"--diff {path}: {error}") from error


def _difference(old: Plan | None, plan: Plan) -> Mapping[str, list[str]]:
    from mixing.plan_diff import diff

    return {} if old is None else {"difference": diff(old, plan).lines}


def _show(plan: Plan, groups: Mapping[str, list[str]]) -> None:
    """Tree, table and picture over training."""
    from mixing.plan_course import course, drawing
    from mixing.plan_table import table, tree

    click.echo(tree(plan))
    rows = table(plan, groups)
    wide = max(18, *(len(row.domain) for row in rows[:_MOST_ROWS])) if rows else 18
    click.echo(
        f"\n{'phase':<12} {'domain':<{wide}} {'share':>8} {'documents':>10} {'bytes':>7} {'characters':>10} "
        f"{'tokens':>7} {'epochs':>7} {'unique':>7}"
    )
    for row in rows[:_MOST_ROWS]:
        counts = (row.num_documents, row.size_bytes, row.num_characters, row.num_tokens)
        amounts = [compact(n) if n or not row.num_tokens else "–" for n in counts]  # sizes may leave some unknown
        click.echo(
            f"{row.phase:<12} {row.domain:<{wide}} {row.share:>8.2%} {amounts[0]:>10} {amounts[1]:>7} "
            f"{amounts[2]:>10} {amounts[3]:>7} {row.epochs:>7.2f} {row.unique_share:>7.0%}"
        )
    if len(rows) > _MOST_ROWS:
        click.echo(f"and {len(rows) - _MOST_ROWS:,} more rows, in --json")
    click.echo("\n" + "\n".join(drawing(course(plan, groups=groups), plan.max_epochs)))


def _page(run: Run, plan: Plan, groups: Mapping[str, list[str]]) -> Path:
    """The plan as a page of pictures beside the run."""
    from recipes.report.axes import colours
    from recipes.report.markup import Section
    from recipes.report.page import write_alone
    from recipes.report.planned import Planned, add_plan

    section = Section("plan", "Plan", f"{plan.num_tokens:,} tokens in {plan.num_steps:,} train steps.")
    hues = colours([domain.name for domain in plan.domains])
    add_plan(section, Planned(plan, hues, f"gristmill plan {run.recipe.called}", groups))
    return write_alone(run.folder / "plan.html", f"{run.name}: plan", [section])
