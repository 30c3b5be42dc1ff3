"""Mixtures that all replicates of a surrogate are asked about, so that their answers can be compared.

Shapes: M mixtures, D trained domains, R replicates, N runs, T measured domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixing.ablation.linear import Predict
from mixing.ablation.objective import Objective
from mixing.ablation.region import Region, is_inside, repair
from mixing.ablation.runs import RunsTable
from mixing.ablation.sampling import generator
from mixing.ablation.surrogates import FITS, combined

AROUND = 500
TREE_BOOTSTRAPS = 8  # a tree costs a thousand times a law; its replicates are used in turn
MOST_VALUES = 4_000_000  # numbers predicted at once: 32 MiB


@dataclass(frozen=True)
class Candidates:
    """Allowed mixtures; `home` is the row of natural weights (or the nearest allowed), `optimum` of the best."""

    mixtures_MD: np.ndarray
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


def replicate_values(
    fitted: RunsTable,
    shares: Mapping[str, float],
    whole: Mapping[str, Predict],
    objective: Objective,
    candidates: Candidates,
    bootstraps: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """The objective of all candidates by the fit to all runs (M,), and by bootstraps (R, M).

    Bayesian bootstraps (Rubin 1981): runs count by exponential weights of mean 1, so that no run, and no domain that only
    one run knows, is ever quite absent.

    Args:
        shares: the surrogates that are believed, and how much.
        whole: fits to all runs.
        bootstraps: how many, and their seed.
    """
    number, seed = bootstraps
    counts_RN = generator(seed, "bootstrap").standard_exponential((number, fitted.num_runs))
    counts_RN /= counts_RN.mean(1, keepdims=True)
    rows_RNT = counts_RN[..., None] * np.isfinite(fitted.losses_NT)
    members = [name for name, share in shares.items() if share > 0]
    fits = {
        name: FITS[name](
            fitted.weights_ND, fitted.losses_NT, rows_RNT[:TREE_BOOTSTRAPS] if name == "lightgbm" else rows_RNT
        )
        for name in members
    }
    whole_1M = _values(combined(whole, shares), objective, candidates.mixtures_MD, 1)
    return whole_1M[0], _values(combined(fits, shares), objective, candidates.mixtures_MD, number)


def _values(predict: Predict, objective: Objective, mixtures_MD: np.ndarray, replicates: int) -> np.ndarray:
    """Objective (R, M), some mixtures at a time."""
    step = max(1, MOST_VALUES // (replicates * len(objective.targets)))
    parts = [objective.of(predict(mixtures_MD[k : k + step])) for k in range(0, len(mixtures_MD), step)]
    return np.concatenate(parts, axis=1)
