r"""Training in several places: who holds a training's folder, and `gristmill train` as torchrun's process.

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        --no-python gristmill train RECIPE

Every process plans the same training from its own recipe and installation, so that the preflight finds who differs.
What the training reads must be there (`gristmill run RECIPE --until plan`), in a work directory that all nodes share.
The first process alone keeps notes, holds the folder, and shows what happens.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import RunError
from recipes.pretraining.amended import read_rollbacks
from recipes.progress import Narrator
from training.launch import Place, place_under_torchrun

if TYPE_CHECKING:
    from recipes.run import Run

# How long other processes wait for the first one to note a rollback, which lists documents.
ROLLBACK_S = 600.0


def num_nodes(run: Run) -> int:
    """Machines that train: torchrun's, else the recipe's."""
    place = place_under_torchrun()
    return place.nodes if place is not None else int(run.recipe.execution.training.nodes)


def prepare_process(run: Run, part: str) -> None:
    """Make a run one of torchrun's processes, where it is; only training is shared out among them.

    Raises:
        RunError: for another part, for stages that are missing, or for other nodes than the recipe's.
    """
    place = place_under_torchrun()
    if place is None:
        return
    called, wanted = run.recipe.called, run.recipe.execution.training.nodes
    if part != "train":
        raise RunError(f"torchrun shares out `gristmill train` alone; run `gristmill {part} {called}` without it")
    if wanted not in (1, place.nodes):
        raise RunError(
            f"{run.recipe.path}: execution.training.nodes is {wanted} and torchrun started {place.nodes}; "
            f"--nnodes {wanted}, or --set execution.training.nodes={place.nodes}"
        )
    if place.rank:
        run.narrator, run.remembers = Narrator(silent=True), False
    from recipes.show import planned_stages

    missing = [stage.title for stage in planned_stages(run) if stage.missing()]
    if missing:
        raise RunError(
            f"{run.recipe.path}: {len(missing)} stages that the training reads are missing ({missing[0]}, …), and each "
            f"of {place.world} processes would make them; first, once: gristmill run {called} --until plan"
        )


def refuse_alone(run: Run) -> None:
    """Refuse to train on this machine alone what the recipe trains on several."""
    nodes = run.recipe.execution.training.nodes
    if nodes > 1 and place_under_torchrun() is None:
        devices = run.recipe.execution.training.devices or "GPUS"
        raise RunError(
            f"{run.recipe.path}: execution.training.nodes is {nodes}, and this is one; start on each of them: torchrun "
            f"--nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint HOST:29500 --no-python "
            f"gristmill train {run.recipe.called} (or --set execution.training.nodes=1)"
        )


def spec_name(place: Place | None) -> str:
    """Name of the specification that a process writes down."""
    return f"training.spec-{place.rank:05d}.json" if place is not None and place.rank else "training.spec.json"


def wait_for_rollback(log: Path, number: int) -> None:
    """Wait until the first process has noted so many rollbacks."""
    deadline = time.monotonic() + ROLLBACK_S
    while len(read_rollbacks(log)) < number:
        if time.monotonic() > deadline:
            raise RunError(f"{log}: the first process noted no rollback in {ROLLBACK_S:.0f} s; look at its log")
        time.sleep(0.1)


@contextmanager
def owned(folder: Path, run: Run) -> Iterator[None]:
    """Hold a training's folder against a second run; the first of torchrun's processes holds it for all."""
    if not run.remembers:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run.narrator.say("  another run trains this model in the same work directory; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
