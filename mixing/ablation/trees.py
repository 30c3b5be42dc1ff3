"""Boosted trees as a surrogate (LightGBM), as in RegMix; good with hundreds of runs. Shapes as in `linear`."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixing.ablation.linear import Predict, clip_to_observed

SETTINGS: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_data_in_leaf": 3,
    "min_data_in_bin": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 42,
    "verbose": -1,
}
ROUNDS = 400


def fit_trees(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """400 small steps of trees with 15 leaves, per replicate and domain; nothing is tuned, nothing stopped early.

    RegMix stops early on its test runs, which flatters it; here the number of steps is fixed.
    """
    boosters = [
        [_fit_one(weights_ND, losses_NT[:, t], rows_NT[:, t]) for t in range(losses_NT.shape[1])]
        for rows_NT in rows_RNT
    ]
    low_R1T, high_R1T = clip_to_observed(losses_NT, rows_RNT)

    def predict(mixtures_MD: np.ndarray) -> np.ndarray:
        predicted = [[booster.predict(mixtures_MD, num_threads=1) for booster in row] for row in boosters]
        return np.clip(np.array(predicted).transpose(0, 2, 1), low_R1T, high_R1T)

    return predict


def _fit_one(weights_ND: np.ndarray, losses_N: np.ndarray, counts_N: np.ndarray) -> Any:
    import lightgbm

    used = counts_N > 0
    measured = lightgbm.Dataset(weights_ND[used], losses_N[used], weight=counts_N[used], params={"verbose": -1})
    return lightgbm.train(SETTINGS, measured, num_boost_round=ROUNDS)
