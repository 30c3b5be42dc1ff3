"""Where the training of an ablation stands: which runs are there, stopped, on their way or failed, and what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mixing.ablation.design import PlannedRun
from recipes.ablation.halving import cut_of, going_on, left_of
from recipes.ablation.placing import SEQUENTIAL_BATCH, place_next, place_optimum
from recipes.ablation.study import Prepared, objective_of
from recipes.ablation.swarm import finished, plan_swarm, run_task, state_file
from recipes.ablation.swarm_cost import Left
from recipes.pipeline import PlannedStage

if TYPE_CHECKING:
    from recipes.run import Run


@dataclass(frozen=True)
class Standing:
    """Where a study stands; nothing is made to find it.

    Attributes:
        number: runs of the whole study, those that are still to be placed among them.
        known: runs that have a mixture and are trained to the end.
        finished: those of them that are whole, diverged ones too.
        placed: whole runs beside them that were counted by the names of their files.
        stopped: names of runs that were stopped early.
        failed: (name of a run's file, why) of those that could not be trained when they were last tried.
        paused: runs that are kept on their way.
        diverged: finished runs whose loss was no number at last.
        left: what is still to be trained.
    """

    number: int
    known: list[PlannedRun]
    finished: list[PlannedRun]
    placed: int
    stopped: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    paused: int
    diverged: int
    left: Left

    @property
    def num_finished(self) -> int:
        """Runs that are whole."""
        return len(self.finished) + self.placed

    def words(self, what: str = "proxies") -> str:
        """In a line: 25 of 28 proxies are finished, 3 were stopped early."""
        said = [f"{self.num_finished} of {self.number} {what} are finished"]
        said += [f"{self.diverged} of them diverged"] if self.diverged else []
        said += [f"{len(self.stopped)} were stopped early"] if self.stopped else []
        said += [f"{self.paused} are kept on their way"] if self.paused else []
        if self.failed:
            name, reason = self.failed[0]
            said.append(f"{len(self.failed)} failed ({name}: {reason})")
        return ", ".join(said)


def standing_of(run: Run, swarm: Prepared, *, places: bool = True) -> Standing:
    """Where the training of a study stands.

    Args:
        run: the run.
        swarm: the study as planned.
        places: place runs that finished ones ask for, which fits surrogates (seconds to a minute). Else such runs are
            counted by their files' names, so that those of another design of this swarm count as well.
    """
    study: Any = run.recipe.ablation
    wanted, number = objective_of(study, run), len(swarm.planned) + study.runs.sequential + study.runs.optimum
    stage = plan_swarm(run, run.tokens, swarm.drawn, swarm.planned, swarm.options)
    best: set[str] | None = None
    if study.stop is None:
        missing = len(stage.missing())
        left, stages = Left(missing, [[1.0] * missing] if missing else []), [stage]
    else:
        cut = cut_of(run, stage, swarm.planned, swarm.options)
        best, stages = going_on(cut, stage, swarm.planned, wanted), [stage, cut.begun]
        left = left_of(cut, best, stage)
    stopped = () if best is None else tuple(one.name for one in cut.drawn if one.name not in best)
    known = [one for one in swarm.planned if one.name not in stopped]
    if places:
        known = place_optimum(run, swarm, place_next(run, swarm, known, train=False), train=False)
    proxies = plan_swarm(run, run.tokens, swarm.drawn, known, swarm.options)
    done = finished(proxies, known)
    waiting = {"sequential": study.runs.sequential, "optimum": study.runs.optimum}
    placed = 0
    if left.number == 0:  # places follow once all others are there
        for one in known:
            waiting[one.kind] = waiting.get(one.kind, 0) - 1
        if not places:
            there = {kind: min(waiting[kind], _rows_named(proxies, kind)) for kind in ("sequential", "optimum")}
            waiting = {kind: waiting[kind] - there[kind] for kind in there}
            placed = sum(there.values())
        elif len(done) == len(known):  # all are placed that can be
            waiting = {}
        missing = len(known) - len(done)
        waves = [[1.0] * missing] if missing else []
        left = replace(left, number=missing, waves=waves, stopped=len(stopped), paused=None, note="")
    left = with_placed(left, max(0, waiting.get("sequential", 0)), max(0, waiting.get("optimum", 0)))
    return Standing(
        number=number if left.number or not places else len(known) + len(stopped),
        known=known,
        finished=done,
        placed=placed,
        stopped=stopped,
        failed=_failed(stages, {run_task(one) for one in swarm.planned} | {run_task(one) for one in known}),
        paused=sum(state_file(proxies, task).exists() for task in proxies.missing()),
        diverged=int(sum((proxies.folder.record(run_task(one)) or {})["counts"].get("diverged", 0) for one in done)),
        left=left,
    )


def with_placed(left: Left, sequential: int, optimum: int) -> Left:
    """What is left, with runs that wait for others: sequential ones some at a time, then those at the optimum."""
    batches = [min(SEQUENTIAL_BATCH, sequential - start) for start in range(0, sequential, SEQUENTIAL_BATCH)]
    waves = [[1.0] * size for size in (*batches, optimum) if size]
    return replace(left, number=left.number + sequential + optimum, waves=[*left.waves, *waves])


def _rows_named(proxies: PlannedStage, kind: str) -> int:
    """Whole runs of a kind in a swarm's folder, by the names of their files."""
    suffix = ".run.json"
    found = [path.name.removesuffix(suffix) for path in proxies.folder.path.glob(f"{kind}.*{suffix}")]
    return sum(proxies.folder.record(task) is not None for task in found)


def _failed(stages: list[PlannedStage], tasks: set[str]) -> tuple[tuple[str, str], ...]:
    """Runs that were given up when their stage was last made, and are not there by now."""
    found: dict[str, str] = {}
    for stage in stages:
        told = stage.folder.last_making().get("set_aside", {})
        missing = set(stage.folder.missing(sorted(set(told) & tasks)))
        found |= {task: reason for task, reason in told.items() if task in missing}
    return tuple(sorted(found.items()))
