"""Partial dependence: the objective over one domain's weight, averaged over the mixtures that were trained.

The weight of a domain is set to each point of a grid in turn, and what a run gave to the others is scaled to the rest,
so that their ratios stay; the mean over runs is the curve. The grid ends where trained mixtures end: nothing is shown
that no run saw. Bands are the middle nine tenths of bootstraps, what other seeds might have added among them. Source of
the method: Friedman 2001; the scaling keeps mixtures on the simplex. Shapes: M mixtures, D domains, R replicates.
"""

from __future__ import annotations

import numpy as np

from mixing.ablation.candidates import Scores
from mixing.ablation.question import Question
from mixing.ablation.seeds import SeedEffect

POINTS = 9
MOST_RUNS = 24
CORNER = 0.9  # runs of nearly one domain are evidence on it alone, and would stretch every axis to 1


def partial_dependence(
    scores: Scores, question: Question, seeds: SeedEffect, replicates: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """The objective over each domain's weight.

    Returns:
        {domain: {weights, objective, low, high}}: points of the grid, the mean by the fit to all runs, and the 5th and
        95th percentile of bootstraps. A domain whose weight no run moved is left out.
    """
    fitted, home_D = question.fitted, question.home
    inner_N = fitted.weights.max(1) < CORNER
    mixtures_ND = np.unique(np.round(np.vstack([home_D[None], fitted.weights[inner_N]]), 9), axis=0)
    rows = np.linspace(0, len(mixtures_ND) - 1, min(len(mixtures_ND), MOST_RUNS)).astype(int)
    mixtures_ND, highest_D = mixtures_ND[rows], mixtures_ND.max(0)
    curves: dict[str, dict[str, list[float]]] = {}
    for place, name in enumerate(fitted.domains):
        if np.ptp(mixtures_ND[:, place]) < 1e-6:
            continue
        grid = highest_D[place] * np.linspace(0.0, 1.0, POINTS) ** 2  # close where losses fall steeply, near zero
        moved_MD = np.concatenate([_moved(mixtures_ND, place, weight) for weight in grid])
        whole_G = scores.whole(moved_MD).reshape(POINTS, -1).mean(1)
        added_RM = seeds.drawn(moved_MD, replicates, seed) - seeds.drawn(home_D[None], replicates, seed)
        values_RG = (scores.replicates(moved_MD) + added_RM).reshape(replicates, POINTS, -1).mean(2)
        low_G, high_G = np.percentile(values_RG, (5, 95), axis=0)
        curves[name] = {key: values.tolist() for key, values in
                        (("weights", grid), ("objective", whole_G), ("low", low_G), ("high", high_G))}  # fmt: skip
    return curves


def _moved(mixtures_ND: np.ndarray, place: int, weight: float) -> np.ndarray:
    """Mixtures with one domain at a weight, the others in their own ratios; one of that domain alone shares evenly."""
    others_ND = mixtures_ND.copy()
    others_ND[:, place] = 0.0
    rest_N = others_ND.sum(1)
    others_ND[rest_N <= 0] = 1.0
    others_ND[:, place] = 0.0
    moved_ND: np.ndarray = others_ND / others_ND.sum(1, keepdims=True) * (1 - weight)
    moved_ND[:, place] = weight
    return moved_ND
