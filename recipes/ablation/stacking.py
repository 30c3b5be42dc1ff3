"""Stacked proxies as a part of a swarm: runs that are missing are trained K at a time as one model, if asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.artifacts import key_of
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from training.stacked_swarm import train_stack

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"stacks": 1}
ROWS = ".rows.json"


def in_stacks(run: Run, swarm: PlannedStage) -> PlannedStage:
    """The swarm with its missing runs trained in stacks of `execution.training.stacked`, the last one smaller.

    Left alone: without a number, since on a CPU stacks are slower than runs side by side (docs/ablation.md); packed
    text, whose sequences hold padding; runs that pause or go on from a pause.
    """
    wanted = run.recipe.execution.training.stacked
    if wanted is None or wanted < 2 or run.recipe.sequences.packing == "best_fit":
        return swarm
    missing = set(swarm.missing())
    open_tasks = [task for task in swarm.tasks if task.name in missing and not _begun(task)]
    groups = [open_tasks[k : k + wanted] for k in range(0, len(open_tasks), wanted)]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return swarm
    stage = plan_stage(
        run.store,
        "stacks",
        [VERSIONS["stacks"], swarm.folder.key],
        title=f"{swarm.title}, {wanted} at once",
        verb=swarm.verb,
        work=train_stack,
        options=swarm.options,
        tasks=tuple(PlannedTask(_name(group), tuple(task.inputs for task in group)) for group in groups),
        sets_aside=True,
    )
    run.make([stage])
    places = {
        task.name: (stage.file(_name(group), ROWS), place) for group in groups for place, task in enumerate(group)
    }
    tasks = tuple(PlannedTask(task.name, replace(task.inputs, stacked=places.get(task.name))) for task in swarm.tasks)
    return replace(swarm, tasks=tasks)


def _begun(task: PlannedTask) -> bool:
    """Whether a run pauses, or goes on from a pause that is there."""
    state = task.inputs.state
    return task.inputs.pause_at is not None or (state is not None and Path(state).exists())


def _name(group: list[PlannedTask]) -> str:
    """Name of a stack: of its runs."""
    return f"stack-{key_of([task.name for task in group])[:12]}"
