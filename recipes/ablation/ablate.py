"""The ablation as a part of a run: design, proxies, analysis, chosen weights.

`mixing.ablation` says which runs and what follows from their losses; `training.swarm` trains one; here they meet. A
finished run is one file, found by key, so that a half-finished swarm resumes and a larger one reuses what is there.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.ablation.analysis import AnalysisOptions
from mixing.ablation.design import PlannedRun
from mixing.ablation.lineage import runs_file
from recipes.ablation.confirm import CONFIRMING, confirm, confirm_options, num_runs, plan_confirmation
from recipes.ablation.earlier import evidence_of, needed_words
from recipes.ablation.halving import halve
from recipes.ablation.left_over import left_over, offer
from recipes.ablation.mixtures import baselines_of, natural_weights
from recipes.ablation.one_pass import Passes, plan_passes, train_passes
from recipes.ablation.placing import place_next, place_optimum
from recipes.ablation.standing import standing_of
from recipes.ablation.study import Prepared, analysis_options, objective_of, prepare
from recipes.ablation.study_cost import Study, announce_study, study_costs
from recipes.ablation.swarm import (
    Untrained,
    make_swarm,
    plan_swarm,
    run_file,
    signals_of_runs,
    untrained,
)
from recipes.ablation.swarm_cost import Runs, SwarmCost, measured_domains
from recipes.ablation.weights import AnalysisInputs, make_weights
from recipes.curating.curate import ALL
from recipes.pipeline import PlannedStage, PlannedTask, content_key, plan_stage
from recipes.progress import duration
from recipes.tokenizing.sorting import make_values
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"weights": 5}


@dataclass(frozen=True)
class Ablation:
    """A finished ablation: the chosen weights and everything they rest on."""

    weights: dict[str, float]
    analysis: dict[str, Any]
    folder: Path


def ablate(run: Run) -> Ablation:
    """Train what is missing of the swarm, fit the surrogates, choose weights, and confirm them where that is asked for.

    Natural weights are trained first: they are what everything else is compared with.
    """
    run.narrator.heading("Ablation")
    swarm = prepare(run)
    stage = plan_weights(run, swarm, train_swarm(run, swarm))
    run.make([stage])
    confirmation = run.recipe.ablation.confirm if run.recipe.ablation is not None else None
    if confirmation is not None:
        stage = confirm(run, stage, swarm.listed)
    analysis = stage.read_json(ALL, ".analysis.json")
    for note in analysis["notes"] if not run.narrator.brief else ():  # `gristmill ablate` shows them with the weights
        run.narrator.say(f"  {note}")
    return Ablation(dict(analysis["chosen"]), analysis, stage.folder.path)


@dataclass(frozen=True)
class Trained:
    """The runs that an analysis rests on, and those that were stopped early: (name, kind, file of the row so far)."""

    planned: list[PlannedRun]
    stopped: tuple[tuple[str, str, str], ...] = ()
    one_pass: tuple[tuple[str, str], ...] = ()


def train_swarm(run: Run, swarm: Prepared) -> Trained:
    """Train the runs of the design that are missing, then place sequential ones where the results say.

    What it costs is said (and timed) only where a run is missing.

    Raises:
        Untrained: where runs are missing and this verb may not train; with how many there are, and hours.
    """
    stage = plan_swarm(run, run.tokens, swarm.drawn, swarm.planned, swarm.options)
    passes = plan_passes(run, swarm.listed, swarm.options.tokens)
    announce_evidence(run, swarm)
    with untrained(run), suppress(Untrained):
        return _all_runs(run, swarm, stage, passes)
    costs = costs_left(run, swarm)
    hours = announce_study(run, costs)
    if not run.trains:
        there = costs[0].number - costs[0].left
        left = f"({duration(hours * 3600)} of training are left)"
        raise Untrained(run, f"which has {there} of {costs[0].number} proxies {left}")
    make_values(run, swarm.drawn, signals_of_runs(swarm.planned, swarm.options), "ablate")
    return _all_runs(run, swarm, stage, passes)


def _all_runs(run: Run, swarm: Prepared, stage: PlannedStage, passes: Passes | None) -> Trained:
    """The runs of the design, then those that are placed by what the others say, then those of one pass."""
    study: Any = run.recipe.ablation
    if study.stop is None:
        make_swarm(run, stage)
        trained = Trained(swarm.planned)
    else:
        halved = halve(run, stage, swarm.planned, swarm.options, objective_of(study, run))
        make_swarm(run, halved.swarm)
        trained = Trained(halved.kept, halved.stopped)
    placed = place_optimum(run, swarm, place_next(run, swarm, trained.planned, train=True), train=True)
    return replace(trained, planned=placed, one_pass=train_passes(run, passes))


def announce(run: Run) -> None:
    """Say what the ablation would train, without training."""
    with untrained(run):
        swarm = prepare(run)
    for one in swarm.planned:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in sorted(one.weights.items()) if share)
        run.narrator.say(f"  {one.name:<20} seed {one.seed}  {shares}")
    announce_evidence(run, swarm)
    announce_study(run, costs_left(run, swarm))


def costs_left(run: Run, swarm: Prepared) -> list[SwarmCost]:
    """What each part of the study comes to, and what is left of it; nothing is trained.

    Once all proxies are there, it is known which weights a confirmation tries, and which of its runs are there.
    """
    study: Any = run.recipe.ablation
    standing, passes = standing_of(run, swarm), plan_passes(run, swarm.listed, swarm.options.tokens)
    stage = plan_swarm(run, run.tokens, swarm.drawn, standing.known, swarm.options)
    missing = [] if passes is None else passes.stage.missing()
    left = [] if passes is None else [k for k, task in enumerate(passes.stage.tasks) if task.name in missing]
    confirmation = None
    if study.confirm is not None:
        found = None if standing.left.number or missing else finished_analysis(run, swarm)
        confirmation = confirmation_cost(run, swarm, found)
    return study_costs(
        run,
        Study(
            (swarm.options, Runs(standing.number, stage=stage, left=standing.left)),
            ([] if passes is None else passes.options, left),
            confirmation,
        ),
        measured_domains(run),
    )


def finished_analysis(run: Run, swarm: Prepared) -> PlannedStage | None:
    """The stage with the analysis of a swarm that is whole; None before it is made. Makes nothing."""
    stage = plan_swarm(run, run.tokens, swarm.drawn, swarm.planned, swarm.options)
    passes = plan_passes(run, swarm.listed, swarm.options.tokens)
    with untrained(run), suppress(Untrained):
        weights = plan_weights(run, swarm, _all_runs(run, swarm, stage, passes))
        return None if weights.missing() else weights
    return None


def confirmation_cost(run: Run, swarm: Prepared, analysed: PlannedStage | None) -> tuple[SwarmOptions, Runs]:
    """What a confirmation trains, as far as it is known before and after the analysis is made."""
    if analysed is None:
        number = num_runs(run, len(list(baselines_of(run, swarm.listed))))
        return confirm_options(run), Runs(number, CONFIRMING)
    with untrained(run):
        found = plan_confirmation(run, analysed, swarm.listed)
    return found.options, Runs(len(found.planned), CONFIRMING, found.swarm)


def left_over_of(run: Run, swarm: Prepared) -> list[tuple[str, str]]:
    """Finished runs of other designs of this swarm that the recipe takes no notice of."""
    study: Any = run.recipe.ablation
    placed = [kind for kind in ("sequential", "optimum") if getattr(study.runs, kind)]
    known = {name for one in swarm.earlier for name in one.table.names}
    return left_over(
        plan_swarm(run, run.tokens, swarm.drawn, swarm.planned, swarm.options), swarm.planned, placed, known
    )


def announce_evidence(run: Run, swarm: Prepared) -> None:
    """Say how many earlier runs still speak, of what, and whether the design has the new ones that are needed."""
    offer(run, left_over_of(run, swarm))
    for line in needed_words(run, swarm.earlier, natural_weights(run, swarm.listed), swarm.planned):
        run.narrator.say(f"  {line}")


def plan_weights(run: Run, swarm: Prepared, trained: Trained) -> PlannedStage:
    """The stage that analyses a swarm and chooses weights."""
    proxies = plan_swarm(run, run.tokens, swarm.drawn, trained.planned, swarm.options)
    options = analysis_options(run, swarm.listed)
    files = tuple((one.name, one.kind, run_file(proxies, one)) for one in trained.planned)
    confirms = run.recipe.ablation is not None and run.recipe.ablation.confirm is not None
    parts = [VERSIONS["weights"], _plain(options), proxies.folder.key, sorted(proxies.task_names)]
    earlier = evidence_of(run.recipe.ablation)
    if isinstance(options.objective, tuple):
        parts.append({"front": 2})  # searched for along all of it
    if trained.stopped:
        parts.append([name for name, _, _ in trained.stopped])
    if trained.one_pass:
        parts.append([(domain, Path(path).parent.name, Path(path).name) for domain, path in trained.one_pass])
    if earlier:
        parts.append([(content_key(str(runs_file(one.path))), one.became) for one in earlier])
    return plan_stage(
        run.store,
        "weights",
        parts,
        title="surrogates" if confirms else "weights",
        verb="ablate",
        work=make_weights,
        options=options,
        tasks=(PlannedTask(ALL, AnalysisInputs(files, trained.stopped, earlier, trained.one_pass)),),
    )


def _plain(options: AnalysisOptions) -> AnalysisOptions:
    """The options as a key takes them: a cap without limit is no JSON number."""
    caps = {name: cap if cap != float("inf") else None for name, cap in (options.max_epochs or {}).items()}
    return replace(options, max_epochs=caps)  # type: ignore[arg-type]
