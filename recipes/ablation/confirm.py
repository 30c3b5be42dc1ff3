"""An ablation's confirmation: proposed weights and baselines one size up, on paired seeds."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.stage import Counts, Output
from mixing.ablation.confirmation import (
    compare,
    confirmation_runs,
    proposed_weights,
    reference_weights,
    rows_as_csv,
    settled,
)
from mixing.ablation.design import PlannedRun
from mixing.ablation.runs import table_of, write_csv
from mixing.domain_stage import Domain
from recipes.ablation.mixtures import baselines_of, target_tokens
from recipes.ablation.swarm import (
    SwarmSize,
    Untrained,
    make_swarm,
    plan_swarm,
    plan_thinned,
    run_file,
    signals_of_runs,
    swarm_options,
    thinned_domains,
)
from recipes.ablation.swarm_cost import announce_swarm
from recipes.curating.curate import ALL
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from recipes.progress import duration
from recipes.tokenizing.sorting import make_values
from recipes.tokenizing.tokens import order_of
from training.swarm import SwarmOptions, read_run

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"confirmed": 3}
CONFIRMING = "runs of confirmation"


@dataclass(frozen=True)
class ConfirmationOptions:
    """What a comparison is made for: the objective and natural weights, as in `mixing.ablation.question`."""

    objective: Any
    natural: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ConfirmationInputs:
    """The analysis and its runs, and the confirmation's run files: (name, kind, path)."""

    analysis: str
    swarm: str
    runs: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Confirmation:
    """A confirmation as planned: domains that it draws from, its runs, what they share, and the stage of them."""

    drawn: PlannedStage
    planned: tuple[PlannedRun, ...]
    options: SwarmOptions
    swarm: PlannedStage


def confirm_options(run: Run) -> SwarmOptions:
    """What the runs of a confirmation share."""
    study: Any = run.recipe.ablation
    size = SwarmSize(study.confirm.model, study.confirm.tokens, study.evaluate.number, study.threads)
    return swarm_options(run, run.tokens, size)


def num_runs(run: Run, baselines: int) -> int:
    """Runs of a confirmation, before the weights that it tries are known: natural and proposed, baselines, orders."""
    study: Any = run.recipe.ablation
    return int((2 + baselines + sum(order.kind != "uniform" for order in study.orders)) * study.confirm.seeds)


def plan_confirmation(run: Run, weights: PlannedStage, listed: list[Domain]) -> Confirmation:
    """The confirmation of a finished analysis; the domains that it draws from are made where this verb may train."""
    study: Any = run.recipe.ablation
    analysis, options = weights.read_json(ALL, ".analysis.json"), confirm_options(run)
    drawn = (thinned_domains if run.trains else plan_thinned)(run, run.tokens, listed, options, target_tokens(run))
    orders = [order_of(order) for order in study.orders]
    planned = confirmation_runs(
        reference_weights(analysis),
        proposed_weights(analysis),
        list(baselines_of(run, listed)),
        study.confirm.seeds,
        run.recipe.seed,
        orders,
    )
    swarm = plan_swarm(run, run.tokens, drawn, planned, options, "confirmation")
    return Confirmation(drawn, tuple(planned), options, swarm)


def confirm(run: Run, weights: PlannedStage, listed: list[Domain]) -> PlannedStage:
    """Train what is missing of a confirmation and settle the weights.

    Args:
        run: the run.
        weights: the finished stage with the analysis.
        listed: domains that a mixture may draw from.
    """
    analysis = weights.read_json(ALL, ".analysis.json")
    found = plan_confirmation(run, weights, listed)
    planned, swarm = found.planned, found.swarm
    if missing := len(swarm.missing()):
        hours = announce_swarm(run, len(planned), found.options, CONFIRMING, swarm)
        if not run.trains:
            told = f"whose confirmation has {len(planned) - missing} of {len(planned)} runs"
            raise Untrained(run, f"{told} ({duration(hours * 3600)} of training are left)")
        make_values(run, found.drawn, signals_of_runs(planned, found.options), "ablate")
    make_swarm(run, swarm)
    inputs = ConfirmationInputs(
        weights.file(ALL, ".analysis.json"),
        weights.file(ALL, ".runs.csv"),
        tuple((one.name, one.kind, run_file(swarm, one)) for one in planned),
    )
    made_for = ConfirmationOptions(_objective(analysis), tuple(sorted(analysis["natural"].items())))
    stage = plan_stage(
        run.store,
        "confirmed",
        [VERSIONS["confirmed"], made_for, weights.folder.key, swarm.folder.key, sorted(swarm.task_names)],
        title="weights",
        verb="ablate",
        work=make_confirmed,
        options=made_for,
        tasks=(PlannedTask(ALL, inputs),),
    )
    run.make([stage])
    return stage


def _objective(analysis: Mapping[str, Any]) -> Any:
    """The ablation's objective over the domains that it counted."""
    kind, shares = analysis["objective"]["kind"], analysis["objective"]["shares"]
    return "worst" if kind == "worst" else dict(shares) if kind == "shares" else tuple(shares)


def make_confirmed(inputs: ConfirmationInputs, options: ConfirmationOptions, output: Output) -> Counts:
    """Compare the arms, settle the weights; write the analysis, the runs of both sizes and the comparison."""
    rows = [{**read_run(path), "name": name} for name, _, path in inputs.runs]
    table = table_of(rows, {name: kind for name, kind, _ in inputs.runs})
    confirmed = compare(table, options.objective, dict(options.natural))
    analysis = json.loads(Path(inputs.analysis).read_text(encoding="utf-8"))
    write_csv(table, output.path(".confirmation_runs.csv"))
    output.path(".runs.csv").write_bytes(Path(inputs.swarm).read_bytes())
    with output.path(".confirmation.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows_as_csv(confirmed))
    text = json.dumps(settled(analysis, confirmed), indent=1, sort_keys=True, allow_nan=False)
    output.path(".analysis.json").write_text(text, encoding="utf-8")
    return {"runs": len(rows), "verdict": confirmed["verdict"]}
