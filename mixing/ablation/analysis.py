"""From a table of runs to weights that can be defended: everything the ablation concludes, as one plain dictionary.

    runs ─preparation─▶ fitted runs ─validation─▶ surrogate ─optimum─▶ mixture, intervals ─verdict─▶ chosen weights

The keys are described in docs/ablation.md. Shapes: N runs, D trained domains, T measured domains, M mixtures, R
replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.ablation import evidence, preparation, report
from mixing.ablation.candidates import Candidates, gather_candidates, replicate_values
from mixing.ablation.objective import Objective, Wanted, make_objective
from mixing.ablation.optimum import Uncertainty, minimise, uncertainty
from mixing.ablation.region import Region, allowed_region, is_inside, nearest
from mixing.ablation.runs import RunsTable
from mixing.ablation.sampling import pool_of
from mixing.ablation.surrogates import COMBINATION, FITS, Predict, all_rows, combined, usable
from mixing.ablation.validation import Validation, choose, validate
from mixing.ablation.verdict import Gain, best_run, surrogate_gain

POOL = 1500


@dataclass(frozen=True)
class AnalysisOptions:
    """What the runs are analysed for.

    Attributes:
        natural: natural weights of the trained domains.
        objective: {pattern: share} ({} for all alike), "worst", or the patterns of a front.
        bounds: (pattern, least, most) of summed weights.
        supply: tokens of each domain.
        max_epochs: most passes over each domain; None or infinite for no cap.
        budget_tokens: of the target run; a weight is at most supply * max_epochs / budget.
        surrogates: names to compare; all without any.
        bootstraps: replicates behind intervals.
        seed: of folds, bootstraps and the search.
    """

    natural: Mapping[str, float]
    objective: Wanted
    bounds: tuple[tuple[str, float, float], ...] = ()
    supply: Mapping[str, float] | None = None
    max_epochs: Mapping[str, float | None] | None = None
    budget_tokens: int = 0
    surrogates: tuple[str, ...] = ()
    bootstraps: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Portfolio:
    """Surrogates fitted to all runs, how well they do on runs held out, and the one that is believed.

    Attributes:
        predictions: per surrogate, the fit to all runs.
        validation: their held-out predictions.
        chosen: name of the surrogate with the least held-out error.
    """

    predictions: dict[str, Predict]
    validation: Validation
    chosen: str

    @property
    def shares(self) -> dict[str, float]:
        """What the chosen surrogate is made of."""
        return self.validation.shares if self.chosen == COMBINATION else {self.chosen: 1.0}


@dataclass(frozen=True)
class Findings:
    """The analysis before it is written down.

    Attributes:
        optimum_D: the surrogate's; `chosen_D` is what the verdict makes of it.
        reason: surrogate, best_run or natural: which road led to the chosen weights.
    """

    objective: Objective
    region: Region
    natural_D: np.ndarray
    portfolio: Portfolio
    optima: dict[str, np.ndarray]
    candidates: Candidates
    uncertainty: Uncertainty
    gain: Gain
    noise: dict[str, Any]
    optimum_D: np.ndarray
    chosen_D: np.ndarray
    reason: str
    best_row: int


def analyse(table: RunsTable, options: AnalysisOptions) -> dict[str, Any]:
    """Compare surrogates, find the best mixture, and say whether it beats natural weights.

    Returns:
        A JSON-serialisable dictionary; docs/ablation.md describes its keys.

    Raises:
        TableError: for a table without usable runs, or with domains that have no natural weight.
        ObjectiveError: for an objective on domains that nothing measures.
        BoundsError: for bounds that no mixture meets.
    """
    table = preparation.aligned(table, options.natural)
    fitted, left_out = preparation.fitted_runs(table)
    notes = [*table.notes, *left_out]
    natural_D = np.array([options.natural[name] for name in fitted.domains])
    natural_D = natural_D / natural_D.sum()
    objective = make_objective(options.objective, fitted.targets, _reference(fitted, natural_D, notes), options.natural)
    region = _region(fitted, natural_D, options, notes)
    findings = _find(fitted, objective, region, natural_D, options, notes)
    return report.write_down(table, fitted, findings, notes, options.seed)


def _reference(fitted: RunsTable, natural_D: np.ndarray, notes: list[str]) -> np.ndarray:
    """Losses at natural weights (T): the mean of the runs there; a surrogate's word where there is none."""
    at_natural_N = natural_rows(fitted, natural_D)
    losses_T = np.array([evidence.mean(column) or math.nan for column in fitted.losses_NT[at_natural_N].T])
    if np.isfinite(losses_T).all():
        return losses_T
    notes.append("No run at natural weights measured every domain: its losses there are a surrogate's prediction.")
    predicted_T = FITS["ridge_sqrt"](fitted.weights_ND, fitted.losses_NT, all_rows(fitted.losses_NT))(natural_D[None])
    result: np.ndarray = np.where(np.isfinite(losses_T), losses_T, predicted_T[0, 0])
    return result


def natural_rows(table: RunsTable, natural_D: np.ndarray) -> np.ndarray:
    """Mask of the runs at natural weights, whatever they are called."""
    close_N: np.ndarray = np.abs(table.weights_ND - natural_D).sum(1) < 1e-4
    return close_N & np.array([kind != "order" for kind in table.kinds])


def _region(fitted: RunsTable, natural_D: np.ndarray, options: AnalysisOptions, notes: list[str]) -> Region:
    """Bounds, caps of supply, and natural weights held where no run says anything."""
    unmoved = preparation.unmoved_domains(fitted)
    held = {name: float(natural_D[fitted.domains.index(name)]) for name in unmoved}
    if held and len(held) < len(fitted.domains):
        notes.append(f"No run changed the weight of {', '.join(held)}: it stays at the natural weight.")
    for first, second in preparation.coupled_domains(fitted, unmoved):
        notes.append(f"The weights of {first} and {second} always moved together: the runs cannot tell them apart.")
    caps: dict[str, float] = {}
    if options.supply and options.max_epochs and options.budget_tokens:
        for name in fitted.domains:
            passes = options.max_epochs.get(name)
            if passes is not None and math.isfinite(passes):
                caps[name] = options.supply[name] * passes / options.budget_tokens
    return allowed_region(fitted.domains, options.bounds, caps, held, notes)


def _find(
    fitted: RunsTable,
    objective: Objective,
    region: Region,
    natural_D: np.ndarray,
    options: AnalysisOptions,
    notes: list[str],
) -> Findings:
    portfolio = _portfolio(fitted, objective, options, notes)
    home_D = nearest(region, natural_D)
    if not is_inside(region, natural_D[None])[0]:
        notes.append(
            "Natural weights are outside the bounds or the supply; the allowed mixture closest to them stands in."
        )
    pool_MD = pool_of(region, natural_D, POOL, (options.seed, "optimum"))
    pool_MD = np.concatenate([home_D[None], fitted.weights_ND[is_inside(region, fitted.weights_ND)], pool_MD])
    optima = {
        name: minimise(lambda w, p=predict: objective.of(p(w)[0]), region, pool_MD, options.seed)  # type: ignore[misc]
        for name, predict in portfolio.predictions.items()
        if name != "constant"
    }
    optimum_D = optima.get(portfolio.chosen, home_D)
    candidates = gather_candidates(region, pool_MD, home_D, optimum_D, options.seed)
    whole_M, values_RM = replicate_values(
        fitted, portfolio.shares, portfolio.predictions, objective, candidates, (options.bootstraps, options.seed)
    )
    doubt = uncertainty(values_RM, whole_M, candidates.mixtures_MD, candidates.optimum, candidates.home)
    noise = evidence.seed_noise(fitted, objective)
    gain = _gain(fitted, portfolio, objective, doubt, whole_M, candidates, noise)
    chosen_D, reason, best_row = _choice(fitted, objective, region, home_D, natural_D, optimum_D, gain, noise)
    return Findings(
        objective,
        region,
        natural_D,
        portfolio,
        optima,
        candidates,
        doubt,
        gain,
        noise,
        optimum_D,
        chosen_D,
        reason,
        best_row,
    )


def _portfolio(fitted: RunsTable, objective: Objective, options: AnalysisOptions, notes: list[str]) -> Portfolio:
    """Fit, cross-validate, choose."""
    names, why = usable(preparation.num_mixtures(fitted), len(fitted.domains), options.surrogates)
    notes.extend(why)
    repeats = 3 if fitted.num_runs <= 64 else 2 if fitted.num_runs <= 160 else 1
    held_out = validate(names, fitted.weights_ND, fitted.losses_NT, objective, repeats, options.seed)
    rows_1NT = all_rows(fitted.losses_NT)
    predictions = {name: FITS[name](fitted.weights_ND, fitted.losses_NT, rows_1NT) for name in names}
    if held_out.shares:
        predictions[COMBINATION] = combined(predictions, held_out.shares)
    wanted = {
        n: p
        for n, p in held_out.predictions.items()
        if not options.surrogates or n in (*options.surrogates, "constant")
    }
    return Portfolio(predictions, held_out, choose(wanted or held_out.predictions, fitted.losses_NT, objective))


def _gain(
    fitted: RunsTable,
    portfolio: Portfolio,
    objective: Objective,
    doubt: Uncertainty,
    whole_M: np.ndarray,
    candidates: Candidates,
    noise: dict[str, Any],
) -> Gain:
    held_out = portfolio.validation.predictions[portfolio.chosen]
    error = report.local_error(held_out, fitted.losses_NT, objective)
    expected = float(whole_M[candidates.optimum] - whole_M[candidates.home])
    return surrogate_gain(expected, doubt.gain_R, doubt.optimism, error, noise["objective"])


def _choice(
    fitted: RunsTable,
    objective: Objective,
    region: Region,
    home_D: np.ndarray,
    natural_D: np.ndarray,
    optimum_D: np.ndarray,
    gain: Gain,
    noise: dict[str, Any],
) -> tuple[np.ndarray, str, int]:
    """The chosen weights, the road to them, and the best run that was trained."""
    values_N = objective.of(fitted.losses_NT)
    at_natural_N = natural_rows(fitted, natural_D)
    open_N = is_inside(region, fitted.weights_ND) & ~at_natural_N
    best, clear = best_run(
        np.where(open_N, values_N, np.nan), values_N[at_natural_N], noise["objective"], noise["degrees"]
    )
    if gain.beats:
        return optimum_D, "surrogate", best
    if clear:
        return fitted.weights_ND[best], "best_run", best
    return home_D, "natural", best
