"""From a table of runs to weights that can be defended: everything the ablation concludes, as one plain dictionary.

    table ─question─▶ runs that count, objective, region ─validation─▶ surrogate ─optimum─▶ mixture and its doubt
          ─verdict─▶ chosen weights ─report─▶ dictionary

The keys are described in docs/ablation.md. Shapes: N runs, D trained domains, T measured domains, M mixtures, R
replicates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixing.ablation import preparation, report
from mixing.ablation.candidates import Candidates, Scores, bootstrap_rows, gather_candidates, make_scores, refine
from mixing.ablation.dependence import partial_dependence
from mixing.ablation.evidence import at_corner, seed_noise
from mixing.ablation.front import front_mixtures
from mixing.ablation.linear import Predict
from mixing.ablation.optimum import Uncertainty, minimise, uncertainty
from mixing.ablation.question import AnalysisOptions, Question, natural_rows, pose
from mixing.ablation.region import is_inside
from mixing.ablation.repeats import PROFILE, Repeats, identification
from mixing.ablation.runs import RunsTable
from mixing.ablation.sampling import pool_of
from mixing.ablation.seeds import SeedEffect, seed_effect
from mixing.ablation.surrogates import COMBINATION, all_rows, combined, usable
from mixing.ablation.validation import Validation, choose, local_error, num_repeats, validate
from mixing.ablation.verdict import Gain, Noise, best_run, spare_of, surrogate_gain

POOL = 1500


@dataclass(frozen=True)
class Portfolio:
    """Surrogates fitted to all runs, how well they do on runs held out, and the one that is believed.

    Attributes:
        predictions: per surrogate, the fit to all runs.
        validation: their held-out predictions.
        eligible: names that were compared.
        chosen: the one of them with the least held-out error.
        notes: which surrogates the runs cannot carry.
    """

    predictions: dict[str, Predict]
    validation: Validation
    eligible: tuple[str, ...]
    chosen: str
    notes: tuple[str, ...]

    @property
    def shares(self) -> dict[str, float]:
        """What the chosen surrogate is made of."""
        return self.validation.shares if self.chosen == COMBINATION else {self.chosen: 1.0}


@dataclass(frozen=True)
class Search:
    """What the surrogate and its bootstraps say of mixtures.

    Attributes:
        optimum: the mixture that the surrogate expects most of (D,).
        candidates: mixtures that all replicates were asked about.
        values: their objective by each replicate (R, M).
        whole: by the fit to all runs (M,).
        doubt: what follows for the optimum.
        seeds: what the seeds of the drawn mixtures may have added.
        scores: what was asked of.
    """

    optimum: np.ndarray
    candidates: Candidates
    values: np.ndarray
    whole: np.ndarray
    doubt: Uncertainty
    seeds: SeedEffect
    scores: Scores


@dataclass(frozen=True)
class Findings:
    """The analysis before it is written down.

    Attributes:
        optima: each surrogate's best mixture.
        chosen: the chosen weights (D,).
        reason: surrogate, best_run or natural: which road led to them.
        best_row: the best run that was trained and may be chosen, -1 without any.
        dependence: the objective over each domain's weight.
        front: mixtures along the front of an objective of several domains (M, D); none for others.
    """

    question: Question
    portfolio: Portfolio
    search: Search
    optima: dict[str, np.ndarray]
    noise: dict[str, Any]
    gain: Gain
    chosen: np.ndarray
    reason: str
    best_row: int
    dependence: dict[str, dict[str, list[float]]]
    front: np.ndarray


def analyse(table: RunsTable, options: AnalysisOptions) -> dict[str, Any]:
    """Compare surrogates, find the best mixture, and say whether it beats natural weights.

    Returns:
        A JSON-serialisable dictionary; docs/ablation.md describes its keys.

    Raises:
        TableError: for a table without usable runs, or with domains that have no natural weight.
        ObjectiveError: for an objective on domains that nothing measures.
        BoundsError: for bounds that no mixture meets.
    """
    question = pose(table, options)
    portfolio = make_portfolio(question, options)
    search = search_mixtures(question, portfolio, options)
    pool_MD = _pool(question, options.seed)
    optima = {
        name: search.optimum if name == portfolio.chosen else best_mixture(question, predict, pool_MD, options.seed)
        for name, predict in portfolio.predictions.items()
        if name != "constant"
    }
    noise = seed_noise(question.fitted, question.objective)
    gain = _gain(question, portfolio, search)
    chosen_D, reason, best_row = _choice(question, search, gain, noise)
    curves = {}
    if portfolio.chosen != "constant":
        curves = partial_dependence(search.scores, question, search.seeds, options.bootstraps, options.seed)
    front_MD = _front(question, portfolio, pool_MD, options.seed)
    findings = Findings(question, portfolio, search, optima, noise, gain, chosen_D, reason, best_row, curves, front_MD)
    return report.write_down(findings, options.seed)


def _front(question: Question, portfolio: Portfolio, pool_MD: np.ndarray, seed: int) -> np.ndarray:
    """Mixtures along the front of a Pareto objective (M, D); none for other objectives."""
    objective, predict = question.objective, portfolio.predictions[portfolio.chosen]
    if objective.kind != "pareto" or portfolio.chosen == "constant":
        return pool_MD[:0]
    counted_T = objective.shares > 0

    def axes(mixtures_MD: np.ndarray) -> np.ndarray:
        return objective.axes(predict(mixtures_MD)[0])[:, counted_T]

    return front_mixtures(axes, int(counted_T.sum()), question.region, pool_MD, seed)


def make_portfolio(question: Question, options: AnalysisOptions) -> Portfolio:
    """Fit what the runs can carry, cross-validate, choose."""
    fitted, objective = question.fitted, question.objective
    names, notes = usable(preparation.num_mixtures(fitted), len(fitted.domains), options.surrogates)
    repeats = num_repeats(fitted.num_runs)
    held_out = validate(names, question.seen(fitted.weights), fitted.losses, objective, repeats, options.seed)
    rows_1NT = all_rows(fitted.losses)
    predictions = {name: question.fit(name, rows_1NT) for name in names}
    if held_out.shares:
        predictions[COMBINATION] = combined(predictions, held_out.shares)
    asked = {n: p for n, p in held_out.predictions.items() if n in (*options.surrogates, "constant")}
    eligible = asked if len(asked) > 1 else held_out.predictions
    chosen = choose(eligible, fitted.losses, objective)
    if question.repeats is not None:
        notes.append(_repeats_profile(question, question.repeats, chosen, options.seed))
    return Portfolio(predictions, held_out, tuple(eligible), chosen, tuple(notes))


def _repeats_profile(question: Question, repeats: Repeats, chosen: str, seed: int) -> str:
    """How well held-out runs are predicted under other values of repeated tokens."""
    fitted, objective = question.fitted, question.objective
    name = "ridge_sqrt" if chosen in (COMBINATION, "constant", "lightgbm") else chosen
    observed_N = objective.of(fitted.losses)
    known_N = np.isfinite(observed_N)
    squares: dict[float, np.ndarray] = {}
    for half_life in PROFILE:
        seen_ND = replace(repeats, half_life=half_life).seen(fitted.weights)
        held_out = validate([name], seen_ND, fitted.losses, objective, 1, seed).predictions[name]
        squares[half_life] = np.square(objective.of(held_out) - observed_N)[:, known_N].mean(0)
    errors = {half_life: float(np.sqrt(values_N.mean())) for half_life, values_N in squares.items()}
    best = min(errors, key=lambda half_life: errors[half_life])
    # The error of a root of a mean of squares, by the delta method.
    spread = float(squares[best].std() / np.sqrt(len(squares[best]))) / (2 * max(errors[best], 1e-12))
    return identification(errors, spread)


def _pool(question: Question, seed: int) -> np.ndarray:
    """Where searches start: natural weights, runs that are allowed, and random mixtures."""
    region, trained_ND = question.region, question.fitted.weights
    drawn_MD = pool_of(region, question.natural, POOL, (seed, "optimum"))
    return np.concatenate([question.home[None], trained_ND[is_inside(region, trained_ND)], drawn_MD])


def best_mixture(question: Question, predict: Predict, pool_MD: np.ndarray, seed: int) -> np.ndarray:
    """The allowed mixture (D,) of which a surrogate expects most."""
    return minimise(lambda w_MD: question.objective.of(predict(w_MD)[0]), question.region, pool_MD, seed)


def search_mixtures(question: Question, portfolio: Portfolio, options: AnalysisOptions) -> Search:
    """Find the chosen surrogate's optimum, and let bootstraps find theirs."""
    pool_MD = _pool(question, options.seed)
    optimum_D = question.home
    if portfolio.chosen != "constant":
        optimum_D = best_mixture(question, portfolio.predictions[portfolio.chosen], pool_MD, options.seed)
    rows_RNT = bootstrap_rows(question.fitted.losses, options.bootstraps, options.seed)
    scores = make_scores(question, portfolio.shares, portfolio.predictions, rows_RNT)
    start = gather_candidates(question.region, pool_MD, question.home, optimum_D, options.seed)
    slow = portfolio.shares.get("lightgbm", 0) > 0
    candidates, values_RM = refine(scores, question.region, start, slow, options.seed)
    whole_M = scores.whole(candidates.mixtures)
    seeds = _seeds(question, portfolio)
    other_RM = seeds.drawn(candidates.mixtures, len(values_RM), options.seed)
    doubt = uncertainty(values_RM, whole_M, candidates.mixtures, candidates.optimum, candidates.home, other_RM)
    return Search(optimum_D, candidates, values_RM, whole_M, doubt, seeds, scores)


def _seeds(question: Question, portfolio: Portfolio) -> SeedEffect:
    """What the seeds of the drawn mixtures may have added to the objective."""
    fitted = question.fitted
    noise = seed_noise(fitted, question.objective)
    at_natural_N = natural_rows(fitted, question.natural)
    return seed_effect(fitted, at_natural_N, noise["objective"], noise["degrees"], _error(question, portfolio))


def _error(question: Question, portfolio: Portfolio) -> float | None:
    held_out = portfolio.validation.predictions[portfolio.chosen]
    return local_error(held_out, question.fitted.losses, question.objective)


def _gain(question: Question, portfolio: Portfolio, search: Search) -> Gain:
    error, seeds, mixtures_MD = _error(question, portfolio), search.seeds, search.candidates.mixtures
    expected = float(search.whole[search.candidates.optimum] - search.whole[search.candidates.home])
    fitted = question.fitted
    spare = spare_of(fitted.num_runs, preparation.num_mixtures(fitted), len(fitted.domains))
    noise = Noise(seeds.sd if seeds.known else None, seeds.degrees)
    added = float(seeds.variance(mixtures_MD[search.candidates.optimum], mixtures_MD[search.candidates.home]))
    return surrogate_gain(expected, search.doubt.gains, search.doubt.optimism, error, noise, spare, added)


def _comparable(fitted: RunsTable) -> np.ndarray:
    """Runs that the seed noise speaks of: the study's own, without those of one domain alone, whose noise is larger."""
    comparable_N: np.ndarray = ~at_corner(fitted) & ~preparation.of_kinds(fitted, (preparation.EARLIER,))
    return comparable_N


def _choice(question: Question, search: Search, gain: Gain, noise: dict[str, Any]) -> tuple[np.ndarray, str, int]:
    """The chosen weights, the road to them, and the best run that was trained."""
    fitted = question.fitted
    values_N = question.objective.of(fitted.losses)
    at_natural_N = natural_rows(fitted, question.natural)
    natural_K = values_N[at_natural_N]
    open_N = is_inside(question.region, fitted.weights) & ~at_natural_N & _comparable(fitted)
    best, clear = best_run(
        np.where(open_N, values_N, np.nan),
        natural_K[np.isfinite(natural_K)],
        Noise(noise["objective"], noise["degrees"]),
    )
    if gain.beats:
        return search.optimum, "surrogate", best
    if clear:
        return fitted.weights[best], "best_run", best
    return question.home, "natural", best


__all__ = ["AnalysisOptions", "analyse", "make_portfolio", "search_mixtures"]
