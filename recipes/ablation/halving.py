"""Early stopping of a swarm: all begin, those that are far behind at a share of the way are not trained to the end.

Only drawn mixtures can be stopped: natural weights, single domains, baselines, orders and runs without a domain answer
questions of their own. Enough go on for the surrogates. A run that goes on is bit for bit the run it would have been,
so it is found by the same key; what is paused is scratch, and a run whose pause is gone starts over.

On tables of 70M-parameter runs the rank correlation between losses at 10 to 20 % of a run and at its end is .8 to .98,
so comparing at 15 to 20 % and keeping a third or more loses little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.ablation.design import PlannedRun
from mixing.ablation.objective import Wanted, make_objective
from mixing.ablation.runs import table_of
from recipes.ablation.swarm import finished, make_swarm, rows_of, run_file, run_task, state_file
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from training.swarm import SwarmOptions, pause_step, read_run, train_run

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"begun": 1}
STOPPABLE = ("dirichlet", "space_filling", "d_optimal")
MIXTURES_A_DOMAIN = 2  # what laws with a slope per domain need


@dataclass(frozen=True)
class Halved:
    """A swarm after its hopeless runs were stopped.

    Attributes:
        kept: runs that are trained to the end.
        stopped: (name, kind, file of its row so far) of the others.
        swarm: the stage that trains the kept ones.
    """

    kept: list[PlannedRun]
    stopped: tuple[tuple[str, str, str], ...]
    swarm: PlannedStage


def halve(
    run: Run, swarm: PlannedStage, planned: Sequence[PlannedRun], options: SwarmOptions, wanted: Wanted
) -> Halved:
    """Train the runs that are never stopped, begin the others, and say which of those go on."""
    stop: Any = run.recipe.ablation.stop if run.recipe.ablation is not None else None
    sure = [one for one in planned if one.kind not in STOPPABLE]
    open_runs = [one for one in planned if one.kind in STOPPABLE]
    step = pause_step(options, stop.at)
    make_swarm(run, _of(swarm, sure))
    done = {one.name for one in finished(swarm, open_runs)}
    begun = _begun(run, swarm, [one for one in open_runs if one.name not in done], step)
    make_swarm(run, begun)
    rows = [
        *(_until(row, step) for row in rows_of(swarm, [one for one in planned if one in sure or one.name in done])),
        *(read_run(run_file(begun, one)) for one in open_runs if one.name not in done),
    ]
    values = _values(rows, planned, wanted)
    least = MIXTURES_A_DOMAIN * len(planned[0].weights) - len({tuple(sorted(one.weights.items())) for one in sure})
    number = min(len(open_runs), max(math.ceil(stop.keep * len(open_runs)), least))
    best = set(sorted((one.name for one in open_runs), key=lambda name: (values[name], name))[:number])
    kept = [one for one in planned if one in sure or one.name in best]
    stopped = [one for one in open_runs if one.name not in best]
    if run.trains:  # else they were stopped long ago
        run.narrator.say(
            f"  {len(stopped)} of {len(open_runs)} drawn mixtures are behind after {step} train steps and are stopped"
        )
    for one in stopped:
        if one.name not in done:
            state_file(swarm, run_task(one)).unlink(missing_ok=True)
    files = tuple((o.name, o.kind, run_file(swarm if o.name in done else begun, o)) for o in stopped)
    return Halved(kept, files, _of(swarm, kept))


def _of(swarm: PlannedStage, runs: Sequence[PlannedRun]) -> PlannedStage:
    """The stage with some of its tasks."""
    names = {run_task(one) for one in runs}
    return replace(swarm, tasks=tuple(task for task in swarm.tasks if task.name in names))


def _begun(run: Run, swarm: PlannedStage, runs: Sequence[PlannedRun], step: int) -> PlannedStage:
    """The stage of first parts: rows until the pause, found by the swarm's key and the step."""
    part = _of(swarm, runs)
    tasks = tuple(
        PlannedTask(task.name, replace(task.inputs, pause_at=step))
        for one in runs
        for task in part.tasks
        if task.name == run_task(one)
    )
    swarm.folder.path.mkdir(parents=True, exist_ok=True)
    return plan_stage(
        run.store,
        "begun",
        [VERSIONS["begun"], swarm.folder.key, step],
        title="first parts of proxies",
        verb="ablate",
        work=train_run,
        options=swarm.options,
        tasks=tasks,
        sets_aside=True,
    )


def _until(row: dict[str, Any], step: int) -> dict[str, Any]:
    """A whole run's row as it stood at a train step; one that diverged later was still going."""
    diverged = row["diverged_at"] if row["diverged_at"] is not None and row["diverged_at"] <= step else None
    measured = [found for found in row["held_out"] if found["step"] <= step]
    return {**row, "held_out": measured, "diverged_at": diverged}


def _values(rows: list[dict[str, Any]], planned: Sequence[PlannedRun], wanted: Wanted) -> dict[str, float]:
    """The objective of every run at the pause; infinite for one that diverged or measured nothing."""
    kinds = {one.name: one.kind for one in planned}
    table = table_of(rows, kinds)
    measured_T = np.isfinite(table.losses).any(0)
    targets = [name for name, some in zip(table.targets, measured_T, strict=True) if some]
    losses_NT = np.where(table.diverged[:, None], np.nan, table.losses)[:, measured_T]
    natural_N = np.array([kind == "natural" for kind in table.kinds])
    weights = next(one.weights for one in planned if one.kind == "natural")
    objective = make_objective(wanted, targets, np.nanmean(losses_NT[natural_N], axis=0), weights)
    values_N = np.nan_to_num(objective.of(losses_NT), nan=math.inf)
    return dict(zip(table.names, values_N.tolist(), strict=True))
