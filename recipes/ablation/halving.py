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
from recipes.ablation.swarm_cost import Left
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


@dataclass(frozen=True)
class Cut:
    """A swarm at the pause.

    Attributes:
        sure: runs that are never stopped; `drawn` are the others.
        done: names of drawn runs that are whole.
        begun: the stage of the first parts of those that are not.
        step: the train step of the pause.
        share: of a run that is behind it then.
        number: drawn runs that go on.
    """

    sure: list[PlannedRun]
    drawn: list[PlannedRun]
    done: frozenset[str]
    begun: PlannedStage
    step: int
    share: float
    number: int


def cut_of(run: Run, swarm: PlannedStage, planned: Sequence[PlannedRun], options: SwarmOptions) -> Cut:
    """A swarm with `ablation.stop` as it stands: which runs may be stopped, and how many go on."""
    sure = [one for one in planned if one.kind not in STOPPABLE]
    drawn = [one for one in planned if one.kind in STOPPABLE]
    done = frozenset(one.name for one in finished(swarm, drawn))
    step, share, number = cut_numbers(run, planned, options)
    begun = _begun(run, swarm, [one for one in drawn if one.name not in done], step)
    return Cut(sure, drawn, done, begun, step, share, number)


def cut_numbers(run: Run, planned: Sequence[PlannedRun], options: SwarmOptions) -> tuple[int, float, int]:
    """The train step of the pause, the share of a run that is behind it then, and how many drawn runs go on."""
    stop: Any = run.recipe.ablation.stop if run.recipe.ablation is not None else None
    sure = {tuple(sorted(one.weights.items())) for one in planned if one.kind not in STOPPABLE}
    drawn, step = sum(one.kind in STOPPABLE for one in planned), pause_step(options, stop.at)
    least = MIXTURES_A_DOMAIN * len(planned[0].weights) - len(sure)
    number = min(drawn, max(math.ceil(stop.keep * drawn), least))
    return step, step * options.batch_tokens / options.tokens, number


def left_of_all(run: Run, planned: Sequence[PlannedRun], options: SwarmOptions) -> Left:
    """What is left of a swarm of which nothing is trained yet."""
    study: Any = run.recipe.ablation
    drawn = sum(one.kind in STOPPABLE for one in planned)
    if study.stop is None or not drawn:
        return Left(len(planned), [[1.0] * len(planned)])
    _, share, number = cut_numbers(run, planned, options)
    waves = _waves(len(planned) - drawn, [share] * drawn, [1.0 - share] * number)
    return Left(len(planned), waves, paused=drawn, note=_note(drawn, share, number))


def _waves(sure: int, first: list[float], rest: list[float]) -> list[list[float]]:
    """Shares of runs in the order that a swarm with a pause trains them in."""
    return [wave for wave in ([1.0] * sure, first, rest) if wave]


def _note(drawn: int, share: float, number: int) -> str:
    return f"{drawn} drawn mixtures pause at {share:.0%} of the way, {number} of them go on"


def going_on(cut: Cut, swarm: PlannedStage, planned: Sequence[PlannedRun], wanted: Wanted) -> set[str] | None:
    """Names of drawn runs that are trained to the end; None while a run is missing that this rests on."""
    if len(finished(swarm, cut.sure)) < len(cut.sure) or cut.begun.missing():
        return None
    done = [one for one in planned if one in cut.sure or one.name in cut.done]
    rows = [
        *(_until(row, cut.step) for row in rows_of(swarm, done)),
        *(read_run(run_file(cut.begun, one)) for one in cut.drawn if one.name not in cut.done),
    ]
    values = _values(rows, planned, wanted)
    return set(sorted((one.name for one in cut.drawn), key=lambda name: (values[name], name))[: cut.number])


def left_of(cut: Cut, best: set[str] | None, swarm: PlannedStage) -> Left:
    """What is left of a swarm whose drawn runs pause: their first parts, then the rest of those that go on.

    A run that was stopped is not left, and how many will be is known before they begin.

    Args:
        cut: the swarm's runs at the pause.
        best: names of those that go on, from `going_on`.
        swarm: the stage of whole runs.
    """
    sure, first = len(cut.sure) - len(finished(swarm, cut.sure)), len(cut.begun.missing())
    if best is None:
        rest = [1.0 - cut.share] * max(0, cut.number - len(cut.done))
        number, stopped = sure + len(cut.drawn) - len(cut.done), 0
    else:
        open_runs = [one for one in cut.drawn if one.name in best and one.name not in cut.done]
        kept = [state_file(swarm, run_task(one)).exists() for one in open_runs]
        rest = [1.0 - cut.share if paused else 1.0 for paused in kept]
        number, stopped = sure + len(rest), len(cut.drawn) - len(best)
    note = _note(len(cut.drawn), cut.share, cut.number)
    waves = _waves(sure, [cut.share] * first, rest)
    paused = len(cut.drawn) - len(cut.done) if best is None else len(rest)
    return Left(number, waves, stopped, paused, (cut.begun, cut.share), note if best is None else "")


def halve(
    run: Run, swarm: PlannedStage, planned: Sequence[PlannedRun], options: SwarmOptions, wanted: Wanted
) -> Halved:
    """Train the runs that are never stopped, begin the others, and say which of those go on."""
    cut = cut_of(run, swarm, planned, options)
    make_swarm(run, _of(swarm, cut.sure))
    swarm.folder.path.mkdir(parents=True, exist_ok=True)  # where runs pause
    make_swarm(run, cut.begun)
    best = going_on(cut, swarm, planned, wanted)
    assert best is not None
    kept = [one for one in planned if one in cut.sure or one.name in best]
    stopped = [one for one in cut.drawn if one.name not in best]
    if run.trains:  # else they were stopped long ago
        run.narrator.say(
            f"  {len(stopped)} of {len(cut.drawn)} drawn mixtures are behind after {cut.step} train steps and are "
            "stopped"
        )
    for one in stopped:
        if one.name not in cut.done:
            state_file(swarm, run_task(one)).unlink(missing_ok=True)
    files = tuple((one.name, one.kind, run_file(swarm if one.name in cut.done else cut.begun, one)) for one in stopped)
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
