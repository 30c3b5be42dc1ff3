"""Mixtures that all replicates of a surrogate are asked about, so that their answers can be compared.

Shapes: M mixtures, D trained domains, R replicates, N runs, T measured domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mixing.ablation.linear import Predict
from mixing.ablation.objective import Objective
from mixing.ablation.question import Question
from mixing.ablation.region import Region, is_inside, repair
from mixing.ablation.sampling import LEAST_WEIGHT, generator
from mixing.ablation.surrogates import combined

AROUND = 500
TREE_BOOTSTRAPS = 32
PROCESS_BOOTSTRAPS = 32
MUCH = 0.1  # share of a combination from which few replicates are the replicates of all members
MANY_RUNS = 600
ROUNDS = 12
CHILDREN = 2
MOST_VALUES = 4_000_000  # numbers predicted at once: 32 MiB


@dataclass(frozen=True)
class Candidates:
    """Allowed mixtures; `home` is the row of natural weights (or the nearest allowed), `optimum` of the best."""

    mixtures: np.ndarray
    home: int
    optimum: int


def gather_candidates(
    region: Region, pool_MD: np.ndarray, home_D: np.ndarray, optimum_D: np.ndarray, seed: int
) -> Candidates:
    """A pool of mixtures, clouds around the optimum, and mixtures on the way from natural weights to it."""
    chance = generator(seed, "candidates")
    widths_M = np.exp(chance.uniform(np.log(0.03), np.log(1.5), AROUND))
    cloud_MD = (optimum_D + 1e-4) * np.exp(widths_M[:, None] * chance.standard_normal((AROUND, len(optimum_D))))
    cloud_MD = repair(region, cloud_MD)
    cloud_MD = cloud_MD[is_inside(region, cloud_MD)]
    way_MD = home_D + np.linspace(0, 1, 21)[:, None] * (optimum_D - home_D)
    return Candidates(np.concatenate([home_D[None], optimum_D[None], way_MD, pool_MD, cloud_MD]), 0, 1)


@dataclass(frozen=True)
class Scores:
    """The objective of mixtures (M, D) by the fit to all runs, (M,), and by bootstraps of it, (R, M)."""

    whole: Callable[[np.ndarray], np.ndarray]
    replicates: Callable[[np.ndarray], np.ndarray]


def make_scores(
    question: Question, shares: Mapping[str, float], whole: Mapping[str, Predict], rows: np.ndarray
) -> Scores:
    """Refit the surrogates that are believed to bootstraps.

    Args:
        question: runs that count, and the objective of their losses.
        shares: surrogates and how much of each.
        whole: their fits to all runs.
        rows: how often each run counts in each bootstrap, (R, N, T).
    """
    fits = {
        name: question.fit(name, rows[:number])
        for name, number in _replicates_of(shares, question.fitted.num_runs, len(rows)).items()
    }
    objective = question.objective
    mean, resampled = combined(whole, shares), combined(fits, shares)
    return Scores(
        lambda mixtures_MD: _values(mean, objective, mixtures_MD, 1)[0],
        lambda mixtures_MD: _values(resampled, objective, mixtures_MD, len(rows)),
    )


def _replicates_of(shares: Mapping[str, float], num_runs: int, replicates: int) -> dict[str, int]:
    """How many replicates each surrogate is fitted to: trees cost a thousand times a law, processes the cube of runs.

    Few replicates are used in turn. In a combination they then stand beside other draws of the other members, and what
    a draw does to all of them alike is lost from the spread; where they have much of a share, all members take few.
    """
    slow = {"lightgbm": TREE_BOOTSTRAPS} | ({"gaussian_process": PROCESS_BOOTSTRAPS} if num_runs > MANY_RUNS else {})
    numbers = {name: min(replicates, slow.get(name, replicates)) for name, share in shares.items() if share > 0}
    heavy = [number for name, number in numbers.items() if name in slow and shares[name] >= MUCH]
    return {name: min([number, *heavy]) for name, number in numbers.items()}


def bootstrap_rows(losses_NT: np.ndarray, number: int, seed: int) -> np.ndarray:
    """How often each run counts in each replicate, (number, N, T).

    Bayesian bootstraps (Rubin 1981): runs count by exponential weights of mean 1, so that no run, and no domain that
    only one run knows, is ever quite absent.
    """
    counts_RN = generator(seed, "bootstrap").standard_exponential((number, len(losses_NT)))
    counts_RN /= counts_RN.mean(1, keepdims=True)
    rows_RNT: np.ndarray = counts_RN[..., None] * np.isfinite(losses_NT)
    return rows_RNT


def _values(predict: Predict, objective: Objective, mixtures_MD: np.ndarray, replicates: int) -> np.ndarray:
    """Objective (R, M), some mixtures at a time; a surrogate with fewer replicates is used in turn."""
    step = max(1, MOST_VALUES // (replicates * len(objective.targets)))
    parts = [objective.of(predict(mixtures_MD[k : k + step])) for k in range(0, len(mixtures_MD), step)]
    values_RM = np.concatenate(parts, axis=1)
    return values_RM[np.arange(replicates) % len(values_RM)]


def refine(
    scores: Scores, region: Region, candidates: Candidates, slow: bool, seed: int
) -> tuple[Candidates, np.ndarray]:
    """Add candidates around every replicate's own best, round by round, so that each finds its optimum.

    All replicates are asked about all candidates, so that each profits from its neighbours' search.

    Args:
        scores: of all replicates.
        region: of allowed mixtures.
        candidates: to start from.
        slow: fewer rounds, for trees.
        seed: of the search.

    Returns:
        More candidates, and the objective of each by each replicate (R, M).
    """
    chance = generator(seed, "refine")
    mixtures_MD = candidates.mixtures
    values_RM = scores.replicates(mixtures_MD)
    for _ in range(ROUNDS // 4 if slow else ROUNDS):
        parents_RD = np.repeat(mixtures_MD[np.argmin(values_RM, axis=1)], 1 if slow else CHILDREN, axis=0)
        children_MD = np.concatenate([_clouded(parents_RD, chance), _exchanged(parents_RD, chance)])
        children_MD = repair(region, children_MD)
        children_MD = children_MD[is_inside(region, children_MD)]
        mixtures_MD = np.concatenate([mixtures_MD, children_MD])
        values_RM = np.concatenate([values_RM, scores.replicates(children_MD)], axis=1)
    return Candidates(mixtures_MD, candidates.home, candidates.optimum), values_RM


def _clouded(parents_MD: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Parents with all weights changed a little or much; below 2e-4 a weight becomes zero."""
    widths_M = np.exp(chance.uniform(np.log(0.01), np.log(0.6), len(parents_MD)))
    factors_MD = np.exp(widths_M[:, None] * chance.standard_normal(parents_MD.shape))
    clouded_MD = (parents_MD + 1e-4) * factors_MD
    return np.where(clouded_MD < LEAST_WEIGHT, 0.0, clouded_MD)


def _exchanged(parents_MD: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Parents with weight moved from one domain to another."""
    rows = np.arange(len(parents_MD))
    givers, takers = chance.integers(0, parents_MD.shape[1], (2, len(parents_MD)))
    amounts_M = np.minimum(np.exp(chance.uniform(np.log(5e-4), np.log(0.1), len(rows))), parents_MD[rows, givers])
    exchanged_MD = parents_MD.copy()
    exchanged_MD[rows, givers] -= amounts_M
    exchanged_MD[rows, takers] += amounts_M
    return exchanged_MD
