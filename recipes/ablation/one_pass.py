"""MindLLM's own protocol beside the repetition-controlled one: one pass over every domain, all scaled by one factor.

A proxy reads a domain once, and domains keep their sizes: the proxy of a large one trains longer. So its losses say
what a source as it is brings, length included; those of equal tokens say what its text brings. Nothing is fitted to
them. Source: MindLLM, arXiv:2310.15777.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.amounts import Amount
from curation.stage import Counts, Output
from mixing.ablation.design import PlannedRun
from mixing.ablation.runs import table_of
from mixing.domain_stage import Domain
from recipes.ablation.swarm import SwarmSize, make_runs, plan_swarm, run_task, state_file, swarm_options
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from training.swarm import SwarmOptions, SwarmRun, train_run

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"passes": 1}


@dataclass(frozen=True)
class PassInputs:
    """A run of one pass and what it is trained with: each has a length, and so a learning rate, of its own."""

    run: SwarmRun
    options: SwarmOptions


@dataclass(frozen=True)
class Passes:
    """The runs of one pass as one stage, so that they share the workers: longest first.

    Attributes:
        stage: trains them.
        domains: the domain of each task, in order.
    """

    stage: PlannedStage
    domains: tuple[str, ...]

    @property
    def options(self) -> list[SwarmOptions]:
        """What each run is trained with."""
        return [task.inputs.options for task in self.stage.tasks]

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """(domain, file of its row) of each."""
        files = [self.stage.file(task.name, ".run.json") for task in self.stage.tasks]
        return tuple(zip(self.domains, files, strict=True))


def scale_of(listed: list[Domain], tokens: int) -> float:
    """The factor by which all domains are scaled: the mean run is as long as the others of the study, at most whole."""
    return min(1.0, len(listed) * tokens / sum(domain.num_tokens for domain in listed))


def plan_passes(run: Run, listed: list[Domain], tokens: int) -> Passes | None:
    """A run for each seed and domain that is long enough for a train step; None where the recipe asks for none.

    The longest come first: the last to begin are short, and no worker waits long for another.
    """
    study: Any = run.recipe.ablation
    found = []
    for domain in listed if study.runs.one_pass else []:
        options = pass_options(run, domain, scale_of(listed, tokens))
        if options.tokens == 0:
            run.narrator.say_once(f"  one pass over {domain.name} is less than a train step: left out")
            continue
        found += [
            (domain.name, options, _task(run, listed, domain, options, seed)) for seed in range(study.runs.one_pass)
        ]
    if not found:
        return None
    found.sort(key=lambda one: (-one[1].tokens, one[2].name))
    stage = plan_stage(
        run.store,
        "passes",
        [VERSIONS["passes"], run.tokens.domains.folder.key],
        title="runs of one pass",
        verb="ablate",
        work=train_pass,
        options=None,
        tasks=tuple(task for _, _, task in found),
        sets_aside=True,
    )
    tasks = [_with_state(stage, task) for task in stage.tasks]
    return Passes(replace(stage, tasks=tuple(tasks)), tuple(domain for domain, _, _ in found))


def pass_options(run: Run, domain: Domain, factor: float) -> SwarmOptions:
    """What a run of one pass over a scaled domain is trained with; of 0 tokens where that is less than a train step."""
    study: Any = run.recipe.ablation
    length = Amount(int(domain.num_tokens * factor), "tokens")
    return swarm_options(run, run.tokens, SwarmSize(study.proxy, length, study.evaluate.number, study.threads))


def _task(run: Run, listed: list[Domain], domain: Domain, options: SwarmOptions, number: int) -> PlannedTask:
    """One run: named by its mixture and seed, and by the key of the swarm that has its options."""
    weights = {other.name: float(other.name == domain.name) for other in listed}
    suffix = f".s{number}" if number else ""
    one = PlannedRun(f"pass.{domain.name}{suffix}", "one_pass", weights, run.recipe.seed + number)
    alone = plan_swarm(run, run.tokens, run.tokens.domains, [one], options)
    return PlannedTask(f"{run_task(one)}-{alone.folder.key[:10]}", PassInputs(alone.tasks[0].inputs, options))


def _with_state(stage: PlannedStage, task: PlannedTask) -> PlannedTask:
    """The task with the place where its run is kept on its way."""
    kept = replace(task.inputs.run, state=str(state_file(stage, task.name)))
    return PlannedTask(task.name, replace(task.inputs, run=kept))


def train_pass(inputs: PassInputs, _: None, output: Output) -> Counts:
    """Train one run of one pass."""
    return train_run(inputs.run, inputs.options, output)


def train_passes(run: Run, passes: Passes | None) -> tuple[tuple[str, str], ...]:
    """Train what is missing; (domain, file of its row) of each."""
    if passes is None:
        return ()
    make_runs(run, passes.stage)
    return passes.rows


def written(runs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Runs of one pass as the analysis shows them, the mean of a domain's seeds.

    Returns:
        {domain: {tokens, losses {measured: nats}, curve {tokens, losses}}}; diverged runs are left out.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for domain, path in runs:
        row = json.loads(Path(path).read_text(encoding="utf-8"))
        if row["diverged_at"] is None and row["held_out"]:
            rows.setdefault(domain, []).append(row)
    shown = {}
    for domain, own in rows.items():
        named = [{**row, "name": f"{row['name']}#{place}"} for place, row in enumerate(own)]
        table = table_of(named)
        losses = {name: float(loss) for name, loss in zip(table.targets, table.losses.mean(0), strict=True)}
        shown[domain] = {"tokens": int(own[0]["num_tokens"]), "losses": losses, "curve": _mean_of(table.curves)}
    return shown


def _mean_of(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Curves of runs that were measured at the same tokens as one; a loss that one of them lacks is unknown."""
    first = curves[0]

    def mean(name: str, place: int) -> float | None:
        values = [curve["losses"][name][place] for curve in curves]
        return None if any(value is None for value in values) else sum(values) / len(values)

    losses = {name: [mean(name, k) for k in range(len(first["tokens"]))] for name in first["losses"]}
    return {"tokens": first["tokens"], "losses": losses}
