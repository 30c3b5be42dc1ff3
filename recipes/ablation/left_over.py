"""Finished proxies of a swarm that its design does not name: those of another design, of other bounds or of more runs.

They lie under the swarm's own key, so they are of the same proxy, text, tokenizer and length, and compare exactly. They
are offered, not taken: what a work directory happens to hold must not change what a recipe chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.ablation.design import PlannedRun
from mixing.ablation.runs import table_of, write_csv
from recipes.ablation.swarm import run_task
from recipes.errors import RunError
from recipes.pipeline import PlannedStage
from training.swarm import read_run

if TYPE_CHECKING:
    from recipes.run import Run

# Runs whose weights tell something of mixtures, by the first word of their names. Not among them: natural weights,
# other orders, and runs of a confirmation, which may not take part in choosing.
KINDS = {
    "one": "one_domain", "without": "leave_one_out", "dirichlet": "dirichlet", "spread": "space_filling",
    "d_opt": "d_optimal", "sequential": "sequential", "optimum": "optimum", "baseline": "baseline",
}  # fmt: skip
_SUFFIX = ".run.json"


def left_over(
    swarm: PlannedStage, planned: Sequence[PlannedRun], placed: Collection[str] = (), known: Collection[str] = ()
) -> list[tuple[str, str]]:
    """(kind, file of its row) of whole runs that lie beside those of a design.

    Args:
        swarm: the stage of the design's runs.
        planned: those runs.
        placed: kinds that the study still places itself.
        known: names of earlier runs that the recipe already takes as evidence.
    """
    own = {run_task(one) for one in planned}
    found = []
    for path in sorted(swarm.folder.path.glob(f"*{_SUFFIX}")):
        task = path.name.removesuffix(_SUFFIX)
        kind = KINDS.get(task.partition(".")[0])
        if kind is None or kind in placed or task in own or swarm.folder.record(task) is None:
            continue
        if f"earlier.{task}" not in known:
            found.append((kind, str(path)))
    return found


def write_left_over(found: Sequence[tuple[str, str]], path: Path) -> int:
    """Write them as a table that `ablation.evidence` takes; returns how many.

    Raises:
        RunError: if there are none.
    """
    if not found:
        raise RunError("no finished proxies of another design lie in the work directory under this swarm's key")
    rows: list[dict[str, Any]] = [
        {**read_run(file), "name": Path(file).name.removesuffix(_SUFFIX), "kind": kind} for kind, file in found
    ]  # named as their files, since designs number their runs alike
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table_of(rows), path)
    return len(rows)


def offer(run: Run, found: Sequence[tuple[str, str]]) -> None:
    """Say how the runs of other designs can be used."""
    if found:
        run.narrator.say(
            f"  {len(found)} finished proxies of another design of this swarm are there too: `gristmill ablate "
            f"{run.recipe.called} --earlier earlier.csv` writes them, and `ablation: {{evidence: [earlier.csv]}}` fits "
            "the surrogates to them"
        )
