"""Runs that are placed where finished ones say: a few at a time by expected improvement, and some at the optimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.confirmation import proposed_weights
from mixing.ablation.design import PlannedRun, optimum_runs
from mixing.ablation.lineage import Evidence, read_evidence, with_evidence
from mixing.ablation.runs import RunsTable, table_of
from mixing.ablation.sequential import next_runs
from recipes.ablation.earlier import evidence_of
from recipes.ablation.study import Prepared, analysis_options
from recipes.ablation.swarm import make_swarm, plan_swarm, rows_of

if TYPE_CHECKING:
    from recipes.run import Run

SEQUENTIAL_BATCH = 4
# Where new runs go: of a table of finished ones, at most so many.
Placing = Callable[[RunsTable, AnalysisOptions, int], list[PlannedRun]]


def place_next(run: Run, swarm: Prepared, planned: list[PlannedRun], *, train: bool) -> list[PlannedRun]:
    """The runs with sequential ones, a few at a time where the runs so far expect most of them.

    A place follows from the runs before it alone, so that a study that was cut short goes on as it would have. Without
    `train` nothing is trained, and it ends where a run is missing.
    """
    study: Any = run.recipe.ablation
    left, options = study.runs.sequential, analysis_options(run, swarm.listed)
    while left > 0:
        stage = plan_swarm(run, run.tokens, swarm.drawn, planned, swarm.options, "sequential proxies")
        if train:
            make_swarm(run, stage)
        elif stage.missing():
            return planned
        more = _placed(run, next_runs, rows_of(stage, planned), planned, options, min(SEQUENTIAL_BATCH, left))
        if not more:
            run.narrator.say_once(f"  {left} sequential runs are left out: there are no more mixtures that differ")
            break
        planned, left = [*planned, *more], left - len(more)
    if train and study.runs.sequential:
        make_swarm(run, plan_swarm(run, run.tokens, swarm.drawn, planned, swarm.options, "sequential proxies"))
    return planned


def place_optimum(run: Run, swarm: Prepared, planned: list[PlannedRun], *, train: bool) -> list[PlannedRun]:
    """The runs with some at the optimum that the others propose, seed by seed beside natural weights.

    Without `train` nothing is trained, and none is placed where a run is missing.
    """
    study: Any = run.recipe.ablation
    stage = plan_swarm(run, run.tokens, swarm.drawn, planned, swarm.options)
    if not study.runs.optimum or (not train and stage.missing()):
        return planned
    options = analysis_options(run, swarm.listed)
    more = _placed(run, runs_at_optimum, rows_of(stage, planned), planned, options, study.runs.optimum)
    if not more:
        run.narrator.say_once("  the surrogate's optimum is natural weights: it needs no runs of its own")
        return planned
    if train:
        title = "runs at the optimum"
        make_swarm(run, plan_swarm(run, run.tokens, swarm.drawn, [*planned, *more], swarm.options, title))
    return [*planned, *more]


def _placed(
    run: Run,
    place: Placing,
    rows: list[dict[str, Any]],
    planned: list[PlannedRun],
    options: AnalysisOptions,
    number: int,
) -> list[PlannedRun]:
    """The runs that finished ones ask for; in a worker, where float sums have one order whatever the machine's threads.

    Args:
        run: the run.
        place: says where, of finished runs.
        rows: of all runs that are planned.
        planned: those runs.
        options: what they are analysed for.
        number: most runs that are placed.
    """
    kinds = {one.name: one.kind for one in planned}
    asked = (place, rows, kinds, options, number, evidence_of(run.recipe.ablation))
    more: list[PlannedRun] = run.pool.submit(place_by_rows, *asked).result()
    return more


def place_by_rows(
    place: Placing,
    rows: list[dict[str, Any]],
    kinds: dict[str, str],
    options: AnalysisOptions,
    number: int,
    earlier: tuple[Evidence, ...] = (),
) -> list[PlannedRun]:
    """The runs that finished ones, and those of earlier swarms that still speak, ask for."""
    table = with_evidence(table_of(rows, kinds), read_evidence(earlier, options.natural), options.natural)
    return place(table, options, number)


def runs_at_optimum(table: RunsTable, options: AnalysisOptions, number: int) -> list[PlannedRun]:
    """Runs at the optimum of a study, on so many seeds; none where that is natural weights."""
    weights = proposed_weights(analyse(table, options))
    return [] if weights is None else optimum_runs(weights, number, options.seed)
