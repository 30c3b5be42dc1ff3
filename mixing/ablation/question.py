"""What a table of runs is asked: runs that count, objective, allowed mixtures, natural weights.

Shapes: N runs, D trained domains, T measured domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixing.ablation import preparation
from mixing.ablation.evidence import mean
from mixing.ablation.linear import Predict, fit_ridge_sqrt
from mixing.ablation.objective import Objective, Wanted, make_objective
from mixing.ablation.region import Region, allowed_region, is_inside, nearest
from mixing.ablation.repeats import Repeats, repeats_of
from mixing.ablation.runs import RunsTable
from mixing.ablation.surrogates import FITS, all_rows

EXACT = 5e-5  # share of tokens that rounded weights may differ in


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
        effective_tokens: whether repeated tokens count less (`repeats`).
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
    effective_tokens: bool = False


@dataclass(frozen=True)
class Question:
    """A table ready to be analysed.

    Attributes:
        table: all runs.
        fitted: those that count for surrogates.
        objective: of their losses.
        region: of allowed mixtures.
        natural: natural weights (D,).
        home: the allowed mixture closest to them (D,): themselves where they are allowed.
        notes: what the reader must know, in words.
        repeats: what repeated tokens are worth; None counts them like new ones.
    """

    table: RunsTable
    fitted: RunsTable
    objective: Objective
    region: Region
    natural: np.ndarray
    home: np.ndarray
    notes: tuple[str, ...]
    repeats: Repeats | None = None

    def seen(self, weights_MD: np.ndarray) -> np.ndarray:
        """Mixtures as surrogates see them: their weights, or effective tokens over the budget."""
        return weights_MD if self.repeats is None else self.repeats.seen(weights_MD)

    def fit(self, name: str, rows_RNT: np.ndarray) -> Predict:
        """Fit a surrogate to the runs; `rows_RNT` says how often each loss counts in each replicate."""
        predict = FITS[name](self.seen(self.fitted.weights), self.fitted.losses, rows_RNT)
        return predict if self.repeats is None else lambda mixtures_MD: predict(self.seen(mixtures_MD))


def pose(table: RunsTable, options: AnalysisOptions) -> Question:
    """Make a question of a table and options.

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
    reference_T = _reference(fitted, natural_D, notes)
    objective = make_objective(options.objective, fitted.targets, reference_T, options.natural)
    region = _region(fitted, natural_D, options, notes)
    if not is_inside(region, natural_D[None])[0]:
        notes.append(
            "Natural weights are outside the bounds or the supply; the allowed mixture closest to them stands in."
        )
    repeats = repeats_of(fitted.domains, options.supply, options.budget_tokens) if options.effective_tokens else None
    if options.effective_tokens and repeats is None:
        notes.append("Supply or budget are unknown: repeated tokens count like new ones.")
    if repeats is not None and np.array_equal(repeats.seen(fitted.weights), fitted.weights):
        notes.append("No run's mixture repeats a domain in the target run: effective tokens change nothing.")
        repeats = None
    return Question(table, fitted, objective, region, natural_D, nearest(region, natural_D), tuple(notes), repeats)


def natural_rows(table: RunsTable, natural_D: np.ndarray) -> np.ndarray:
    """Mask of the runs at natural weights, whatever they are called.

    Tables are kept while texts change a little: where no run is at natural weights to the digit, those count that
    differ in less than `LEAST_MOVE` of the tokens. Runs of earlier swarms count only where the study has none.
    """
    apart_N = preparation.moved(table.weights, natural_D)
    apart_N[preparation.of_kinds(table, preparation.NOT_FITTED)] = np.inf
    earlier_N = preparation.of_kinds(table, (preparation.EARLIER,))
    masks = [(apart_N <= most) & own_N for own_N in (~earlier_N, earlier_N) for most in (EXACT, preparation.LEAST_MOVE)]
    found_N: np.ndarray = next((mask_N for mask_N in masks if mask_N.any()), masks[0])
    return found_N


def _reference(fitted: RunsTable, natural_D: np.ndarray, notes: list[str]) -> np.ndarray:
    """Losses at natural weights (T): the mean of the runs there; a surrogate's word where there is none."""
    at_natural_N = natural_rows(fitted, natural_D)
    apart_N = preparation.moved(fitted.weights, natural_D)
    if at_natural_N.any() and (apart := float(apart_N[at_natural_N].max())) > EXACT:
        notes.append(f"Runs whose weights differ from natural ones in {apart:.2%} of the tokens count as natural.")
    losses_T = np.array([mean(column) or math.nan for column in fitted.losses[at_natural_N].T])
    if np.isfinite(losses_T).all():
        return losses_T
    said = "losses at natural weights are a surrogate's prediction"
    called_N = preparation.of_kinds(fitted, ("natural",))
    if at_natural_N.any():
        notes.append(f"No run at natural weights measured every domain: the others' {said}.")
    elif called_N.any():
        notes.append(
            f"Runs called natural have other weights than those that are natural here "
            f"({float(apart_N[called_N].min()):.1%} of the tokens lie elsewhere): {said}."
        )
    else:
        notes.append(f"No run was trained at natural weights: {said}.")
    predicted_RMT = fit_ridge_sqrt(fitted.weights, fitted.losses, all_rows(fitted.losses))(natural_D[None])
    reference_T: np.ndarray = np.where(np.isfinite(losses_T), losses_T, predicted_RMT[0, 0])
    return reference_T


def _region(fitted: RunsTable, natural_D: np.ndarray, options: AnalysisOptions, notes: list[str]) -> Region:
    """Bounds, caps of supply, and natural weights held where no run says anything."""
    unmoved = preparation.unmoved_domains(fitted)
    held = {name: float(natural_D[fitted.domains.index(name)]) for name in unmoved}
    if held and len(held) < len(fitted.domains):
        notes.append(f"No run changed the weight of {', '.join(held)}: it stays at the natural weight.")
    for first, second in preparation.coupled_domains(fitted, unmoved):
        notes.append(f"The weights of {first} and {second} always moved together: the runs cannot tell them apart.")
    return allowed_region(fitted.domains, options.bounds, _caps(fitted.domains, options), held, notes)


def _caps(domains: tuple[str, ...], options: AnalysisOptions) -> dict[str, float]:
    """The most weight that a domain's supply allows the target run."""
    if not (options.supply and options.max_epochs and options.budget_tokens):
        return {}
    passes = {name: options.max_epochs.get(name) for name in domains}
    return {
        name: options.supply[name] * most / options.budget_tokens
        for name, most in passes.items()
        if most is not None and math.isfinite(most)
    }
