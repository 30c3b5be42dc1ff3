"""An ablation as planned, before anything of it is trained: its domains, its design and what its runs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixing.ablation.analysis import AnalysisOptions
from mixing.ablation.design import DesignOptions, PlannedRun, design
from mixing.ablation.lineage import Carried
from mixing.ablation.region import BoundsError
from mixing.domain_stage import Domain
from recipes.ablation.earlier import earlier_runs, known_mixtures
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
    supply_of,
    target_tokens,
)
from recipes.ablation.swarm import SwarmSize, plan_thinned, swarm_options, thinned_domains
from recipes.pipeline import PlannedStage
from recipes.tokenizing.tokens import order_of
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run

BOOTSTRAPS = 200


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
    earlier = earlier_runs(run, natural_weights(run, listed))
    thinned = thinned_domains if run.trains else plan_thinned  # who only looks needs no more than their key
    drawn = thinned(run, tokens, listed, options, target_tokens(run))
    return Prepared(listed, drawn, plan_design(run, listed, earlier), options, earlier)


def proxy_options(run: Run) -> SwarmOptions:
    """What all proxies of the swarm share."""
    study: Any = run.recipe.ablation
    return swarm_options(run, run.tokens, SwarmSize(study.proxy, study.tokens, study.evaluate.number, study.threads))


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
        return design([domain.name for domain in listed], natural_weights(run, listed), options)
    except BoundsError as error:
        refuse_bounds(run, error)


def analysis_options(run: Run, listed: list[Domain]) -> AnalysisOptions:
    """What the runs of a recipe's swarm are analysed for."""
    study: Any = run.recipe.ablation
    return AnalysisOptions(
        natural=natural_weights(run, listed),
        objective=objective_of(study, run),
        bounds=bounds_of(study),
        supply=supply_of(run, listed),
        max_epochs=caps_of(run, [domain.name for domain in listed]),
        budget_tokens=target_tokens(run),
        surrogates=study.surrogates,
        bootstraps=BOOTSTRAPS,
        seed=run.recipe.seed,
        effective_tokens=study.effective_tokens,
    )


def objective_of(wanted: Any, run: Run) -> Any:
    """The objective as plain values: shares of patterns, `worst`, or the patterns of a front."""
    if wanted.objective is None:
        return {}
    if wanted.objective.kind == "worst":
        return "worst"
    return dict(wanted.objective.shares) if wanted.objective.kind == "shares" else tuple(wanted.objective.pareto)
