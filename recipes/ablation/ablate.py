"""The ablation as a part of a run: design, proxies, analysis, chosen weights.

`mixing.ablation` says which runs and what follows from their losses; `training.swarm` trains one; here they meet. A
finished run is one file, found by key, so that a half-finished swarm resumes and a larger one reuses what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.confirmation import proposed_weights
from mixing.ablation.design import DesignOptions, PlannedRun, design, optimum_runs
from mixing.ablation.lineage import Carried, Evidence, read_evidence, runs_file, with_evidence
from mixing.ablation.region import BoundsError
from mixing.ablation.runs import RunsTable, table_of
from mixing.ablation.sequential import next_runs
from mixing.domain_stage import Domain
from recipes.ablation.confirm import announce_confirmation, confirm
from recipes.ablation.earlier import earlier_runs, evidence_of, known_mixtures, needed_words
from recipes.ablation.halving import halve
from recipes.ablation.left_over import left_over, offer
from recipes.ablation.mixtures import (
    baselines_of,
    bounds_of,
    caps_of,
    check_objective,
    check_supply,
    domains_to_mix,
    most_weights,
    natural_weights,
    refuse_bounds,
    target_tokens,
)
from recipes.ablation.one_pass import OnePass, announce_one_pass, plan_one_pass, train_one_pass
from recipes.ablation.swarm import (
    SwarmSize,
    Untrained,
    finished,
    make_swarm,
    plan_swarm,
    plan_thinned,
    rows_of,
    run_file,
    signals_of_runs,
    swarm_options,
    thinned_domains,
    untrained,
)
from recipes.ablation.swarm_cost import announce_swarm
from recipes.ablation.weights import AnalysisInputs, make_weights
from recipes.curating.curate import ALL
from recipes.pipeline import PlannedStage, PlannedTask, content_key, plan_stage
from recipes.progress import duration
from recipes.tokenizing.sorting import make_values
from recipes.tokenizing.tokens import order_of
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"weights": 4}
BOOTSTRAPS = 200
SEQUENTIAL_BATCH = 4
# Where new runs go: of a table of finished ones, at most so many.
Placing = Callable[[RunsTable, AnalysisOptions, int], list[PlannedRun]]


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
        stage = confirm(run, stage, swarm.listed, list(baselines_of(run, swarm.listed)), target_tokens(run))
    analysis = stage.read_json(ALL, ".analysis.json")
    for note in analysis["notes"] if not run.narrator.brief else ():  # `gristmill ablate` shows them with the weights
        run.narrator.say(f"  {note}")
    return Ablation(dict(analysis["chosen"]), analysis, stage.folder.path)


@dataclass(frozen=True)
class Prepared:
    """A swarm before it is trained: its domains, the thinned ones that it draws from, runs, options, earlier runs."""

    listed: list[Domain]
    drawn: PlannedStage
    planned: list[PlannedRun]
    options: SwarmOptions
    earlier: list[Carried]


def prepare(run: Run) -> Prepared:
    """Plan the swarm; its domains are made."""
    tokens = run.tokens
    check_objective(run)
    listed = domains_to_mix(tokens)
    check_supply(run, listed)
    options = proxy_options(run)
    earlier = earlier_runs(run, natural_weights(listed))
    thinned = thinned_domains if run.trains else plan_thinned  # who only looks needs no more than their key
    drawn = thinned(run, tokens, listed, options, target_tokens(run))
    return Prepared(listed, drawn, plan_design(run, listed, earlier), options, earlier)


def proxy_options(run: Run) -> SwarmOptions:
    """What all proxies of the swarm share."""
    study: Any = run.recipe.ablation
    return swarm_options(run, run.tokens, SwarmSize(study.proxy, study.tokens, study.evaluate.number, study.threads))


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
    passes = plan_one_pass(run, swarm.listed, swarm.options.tokens)
    announce_evidence(run, swarm)
    with untrained(run), suppress(Untrained):
        return _all_runs(run, swarm, stage, passes)
    hours = announce_cost(run, swarm, passes, stage)
    if not run.trains:
        done, number = len(finished(stage, swarm.planned)), len(swarm.planned)
        raise Untrained(run, f"which has {done} of {number} proxies ({duration(hours * 3600)} of training are left)")
    make_values(run, swarm.drawn, signals_of_runs(swarm.planned, swarm.options), "ablate")
    return _all_runs(run, swarm, stage, passes)


def _all_runs(run: Run, swarm: Prepared, stage: PlannedStage, passes: list[OnePass]) -> Trained:
    """The runs of the design, then those that are placed by what the others say, then those of one pass."""
    study: Any = run.recipe.ablation
    if study.stop is None:
        make_swarm(run, stage)
        trained = Trained(swarm.planned)
    else:
        halved = halve(run, stage, swarm.planned, swarm.options, objective_of(study, run))
        make_swarm(run, halved.swarm)
        trained = Trained(halved.kept, halved.stopped)
    placed = place_optimum(run, swarm, place_next(run, swarm, trained.planned, train=True))
    return replace(trained, planned=placed, one_pass=train_one_pass(run, passes))


def place_next(run: Run, swarm: Prepared, planned: list[PlannedRun], *, train: bool) -> list[PlannedRun]:
    """The runs with sequential ones, a few at a time where the runs so far expect most of them.

    A place follows from the runs before it alone, so that a study that was cut short goes on as it would have. Without
    `train` nothing is trained, and it ends where a run is missing.
    """
    study: Any = run.recipe.ablation
    left, options = study.runs.sequential, analysis_options(run, swarm.listed)
    while left > 0:
        stage = plan_swarm(run, run.tokens, swarm.drawn, planned, swarm.options, "sequential proxies")
        if train:
            make_swarm(run, stage)
        elif stage.missing():
            return planned
        more = _placed(run, next_runs, rows_of(stage, planned), planned, options, min(SEQUENTIAL_BATCH, left))
        if not more:
            run.narrator.say(f"  {left} sequential runs are left out: there are no more mixtures that differ")
            break
        planned, left = [*planned, *more], left - len(more)
    if train and study.runs.sequential:
        make_swarm(run, plan_swarm(run, run.tokens, swarm.drawn, planned, swarm.options, "sequential proxies"))
    return planned


def place_optimum(run: Run, swarm: Prepared, planned: list[PlannedRun]) -> list[PlannedRun]:
    """The runs with some at the optimum that the others propose, seed by seed beside natural weights."""
    study: Any = run.recipe.ablation
    if not study.runs.optimum:
        return planned
    stage = plan_swarm(run, run.tokens, swarm.drawn, planned, swarm.options)
    options = analysis_options(run, swarm.listed)
    more = _placed(run, runs_at_optimum, rows_of(stage, planned), planned, options, study.runs.optimum)
    if not more:
        run.narrator.say("  the surrogate's optimum is natural weights: it needs no runs of its own")
        return planned
    make_swarm(run, plan_swarm(run, run.tokens, swarm.drawn, [*planned, *more], swarm.options, "runs at the optimum"))
    return [*planned, *more]


def _placed(
    run: Run,
    place: Placing,
    rows: list[dict[str, Any]],
    planned: list[PlannedRun],
    options: AnalysisOptions,
    number: int,
) -> list[PlannedRun]:
    """The runs that finished ones ask for; in a worker, where float sums have one order whatever the machine's threads.

    Args:
        run: the run.
        place: says where, of finished runs.
        rows: of all runs that are planned.
        planned: those runs.
        options: what they are analysed for.
        number: most runs that are placed.
    """
    kinds = {one.name: one.kind for one in planned}
    asked = (place, rows, kinds, options, number, evidence_of(run.recipe.ablation))
    more: list[PlannedRun] = run.pool.submit(place_by_rows, *asked).result()
    return more


def place_by_rows(
    place: Placing,
    rows: list[dict[str, Any]],
    kinds: dict[str, str],
    options: AnalysisOptions,
    number: int,
    earlier: tuple[Evidence, ...] = (),
) -> list[PlannedRun]:
    """The runs that finished ones, and those of earlier swarms that still speak, ask for."""
    table = with_evidence(table_of(rows, kinds), read_evidence(earlier, options.natural), options.natural)
    return place(table, options, number)


def runs_at_optimum(table: RunsTable, options: AnalysisOptions, number: int) -> list[PlannedRun]:
    """Runs at the optimum of a study, on so many seeds; none where that is natural weights."""
    weights = proposed_weights(analyse(table, options))
    return [] if weights is None else optimum_runs(weights, number, options.seed)


def plan_design(run: Run, listed: list[Domain], earlier: list[Carried]) -> list[PlannedRun]:
    """The runs of the swarm; those that are placed go where earlier ones were not."""
    wanted: Any = run.recipe.ablation
    runs = wanted.runs
    options = DesignOptions(
        one_domain=runs.one_domain,
        dirichlet=runs.dirichlet,
        leave_one_out=runs.leave_one_out,
        space_filling=runs.space_filling,
        d_optimal=runs.d_optimal,
        sequential=runs.sequential,
        repeats=runs.repeats,
        bounds=bounds_of(wanted),
        baselines=tuple(baselines_of(run, listed)),
        orders=tuple(order_of(order) for order in wanted.orders),
        seed=run.recipe.seed,
        caps=tuple(most_weights(run, listed)),
        known=known_mixtures(earlier),
    )
    try:
        return design([domain.name for domain in listed], natural_weights(listed), options)
    except BoundsError as error:
        refuse_bounds(run, error)


def announce(run: Run) -> None:
    """Say what the ablation would train, without training."""
    swarm = prepare(run)
    for one in swarm.planned:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in sorted(one.weights.items()) if share)
        run.narrator.say(f"  {one.name:<20} seed {one.seed}  {shares}")
    announce_evidence(run, swarm)
    stage = plan_swarm(run, run.tokens, swarm.drawn, swarm.planned, swarm.options)
    announce_cost(run, swarm, plan_one_pass(run, swarm.listed, swarm.options.tokens), stage)


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
    for line in needed_words(run, swarm.earlier, natural_weights(swarm.listed), swarm.planned):
        run.narrator.say(f"  {line}")


def announce_cost(run: Run, swarm: Prepared, passes: list[OnePass], stage: PlannedStage) -> float:
    """Say what the whole study costs, its confirmation too, before any of it is spent; returns hours that are left."""
    study: Any = run.recipe.ablation
    number = len(swarm.planned) + study.runs.sequential + study.runs.optimum
    hours = announce_swarm(run, number, swarm.options, swarm=stage)
    hours += announce_one_pass(run, passes)
    if study.stop is not None:
        run.narrator.say(f"  less where runs are stopped after {study.stop.at:.0%} of the way")
    if study.confirm is not None:
        hours += announce_confirmation(run, len(list(baselines_of(run, swarm.listed))))
        run.narrator.say(f"  {duration(hours * 3600)} in all")
    return hours


def analysis_options(run: Run, listed: list[Domain]) -> AnalysisOptions:
    """What the runs of a recipe's swarm are analysed for."""
    study: Any = run.recipe.ablation
    return AnalysisOptions(
        natural=natural_weights(listed),
        objective=objective_of(study, run),
        bounds=bounds_of(study),
        supply={domain.name: domain.num_tokens for domain in listed},
        max_epochs=caps_of(run, [domain.name for domain in listed]),
        budget_tokens=target_tokens(run),
        surrogates=study.surrogates,
        bootstraps=BOOTSTRAPS,
        seed=run.recipe.seed,
        effective_tokens=study.effective_tokens,
    )


def plan_weights(run: Run, swarm: Prepared, trained: Trained) -> PlannedStage:
    """The stage that analyses a swarm and chooses weights."""
    proxies = plan_swarm(run, run.tokens, swarm.drawn, trained.planned, swarm.options)
    options = analysis_options(run, swarm.listed)
    files = tuple((one.name, one.kind, run_file(proxies, one)) for one in trained.planned)
    confirms = run.recipe.ablation is not None and run.recipe.ablation.confirm is not None
    parts = [VERSIONS["weights"], _plain(options), proxies.folder.key, sorted(proxies.task_names)]
    earlier = evidence_of(run.recipe.ablation)
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


def objective_of(wanted: Any, run: Run) -> Any:
    """The objective as plain values: shares of patterns, `worst`, or the patterns of a front."""
    if wanted.objective is None:
        return {}
    if wanted.objective.kind == "worst":
        return "worst"
    return dict(wanted.objective.shares) if wanted.objective.kind == "shares" else tuple(wanted.objective.pareto)
