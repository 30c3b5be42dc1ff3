"""Which runs of a swarm are trained in stacks, and where their rows are then found."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="stacks are trained")

from recipes.ablation.stacking import in_stacks
from recipes.artifacts import Store
from recipes.pipeline import PlannedTask, plan_stage
from training.swarm import SwarmRun


def swarm_of(store, folder, number):
    """A swarm of runs with places for pauses; the first is paused, the second is to pause."""
    tasks = [
        PlannedTask(f"r{k}", SwarmRun(f"r{k}", (("a", 1.0),), k, "d", "d", state=str(folder / f"r{k}.pt")))
        for k in range(number)
    ]
    (folder / "r0.pt").write_bytes(b"")
    tasks[1] = PlannedTask("r1", SwarmRun("r1", (("a", 1.0),), 1, "d", "d", pause_at=3))
    return plan_stage(
        store, "proxies", ["x"], title="proxies", verb="ablate", work=print, options=None, tasks=tuple(tasks)
    )  # fmt: skip


def made_with(stacked, tmp_path, number=7):
    """What would be made, and the swarm after it."""
    made = []
    store = Store(tmp_path, ())
    training = SimpleNamespace(stacked=stacked)
    recipe = SimpleNamespace(
        execution=SimpleNamespace(training=training), sequences=SimpleNamespace(packing="contiguous")
    )  # fmt: skip
    run = SimpleNamespace(recipe=recipe, store=store, make=made.extend)
    return made, in_stacks(run, swarm_of(store, tmp_path, number))


def test_runs_that_did_not_begin_are_stacked_and_found_by_their_place(tmp_path):
    made, swarm = made_with(2, tmp_path)
    (stage,) = made
    assert [[run.name for run in task.inputs] for task in stage.tasks] == [["r2", "r3"], ["r4", "r5"]]
    places = {task.name: task.inputs.stacked and task.inputs.stacked[1] for task in swarm.tasks}
    assert places == {"r0": None, "r1": None, "r2": 0, "r3": 1, "r4": 0, "r5": 1, "r6": None}
    assert swarm.folder.key == swarm_of(Store(tmp_path, ()), tmp_path, 7).folder.key


@pytest.mark.parametrize("stacked", [None, 1])
def test_swarm_without_a_number_is_left_alone(stacked, tmp_path):
    made, swarm = made_with(stacked, tmp_path)
    assert not made
    assert all(task.inputs.stacked is None for task in swarm.tasks)
