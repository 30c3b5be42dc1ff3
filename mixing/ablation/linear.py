"""Surrogates with a closed form: a constant, a plane in w, ridge regression on sqrt(w).

Every surrogate of this package has one shape: `fit(weights_ND, losses_NT, rows_RNT) -> predict`, and
`predict(mixtures_MD) -> losses_RMT`. `rows` says how often each run counts for each domain in each of R replicates: a
fold of a cross-validation, a bootstrap, or all runs once are the same call. Shapes: R replicates, N runs, M mixtures,
D trained domains, T measured domains, P features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]
MOST_NUMBERS = 8_000_000  # of floats that a step of a ridge regression holds: 64 MiB
OUTSIDE = 0.3  # predictions stay within this many standard deviations of the observed range


def clip_to_observed(losses_NT: np.ndarray, rows_RNT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and most that may be predicted, (R, 1, T): the range seen by each replicate, widened by .3 SD.

    An exponential law leaves the observed range by a factor on a few mixtures; every surrogate is held to it.
    """
    seen = rows_RNT > 0
    low_RT = np.where(seen, losses_NT, np.inf).min(1)
    high_RT = np.where(seen, losses_NT, -np.inf).max(1)
    margin_RT = OUTSIDE * moments(losses_NT, rows_RNT)[1]
    return (low_RT - margin_RT)[:, None], (high_RT + margin_RT)[:, None]


def moments(losses_NT: np.ndarray, rows_RNT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the rows that count, each (R, T); a domain that never varies has 1e-12."""
    total_RT = np.maximum(rows_RNT.sum(1), 1e-300)
    filled_NT = np.nan_to_num(losses_NT)
    mean_RT = (rows_RNT * filled_NT).sum(1) / total_RT
    spread_RNT = np.square(filled_NT[None] - mean_RT[:, None])
    return mean_RT, np.sqrt((rows_RNT * spread_RNT).sum(1) / total_RT) + 1e-12


def fit_constant(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """The mean loss, whatever the mixture: what any other surrogate must beat."""
    mean_RT, _ = moments(losses_NT, rows_RNT)
    return lambda mixtures_MD: np.repeat(mean_RT[:, None], len(mixtures_MD), axis=1)


def fit_linear(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """A plane in the weights, with a trace of ridge because weights sum to 1."""
    return _fit_ridge(weights_ND, losses_NT, rows_RNT, np.asarray, 1e-6)


def fit_ridge_sqrt(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """Ridge regression on sqrt(w): steep near w = 0 as losses are, and safe with few runs."""
    return _fit_ridge(weights_ND, losses_NT, rows_RNT, np.sqrt, 0.1)


def _fit_ridge(
    weights_ND: np.ndarray,
    losses_NT: np.ndarray,
    rows_RNT: np.ndarray,
    transform: Callable[[np.ndarray], np.ndarray],
    penalty: float,
) -> Predict:
    """Weighted ridge regression of all replicates and domains at once; the intercept is not penalised."""
    centre_D = transform(weights_ND).mean(0)
    features_NP = _with_one(transform(weights_ND) - centre_D)
    coefficients_RPT = solve_ridge(features_NP, losses_NT, rows_RNT, penalty)
    low_R1T, high_R1T = clip_to_observed(losses_NT, rows_RNT)

    def predict(mixtures_MD: np.ndarray) -> np.ndarray:
        plane_RMT = _with_one(transform(mixtures_MD) - centre_D) @ coefficients_RPT
        clipped_RMT: np.ndarray = np.clip(plane_RMT, low_R1T, high_R1T)
        return clipped_RMT

    return predict


def _with_one(features_NP: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(features_NP), 1)), features_NP], axis=1)


def solve_ridge(features_NP: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients (R, P, T) of weighted ridge regressions whose first feature is the constant, not penalised.

    Domains that count the same runs share a normal matrix. Some replicates at a time, so that memory is that of
    `MOST_NUMBERS` however many replicates and domains there are.
    """
    num_runs, num_features = features_NP.shape
    num_replicates, _, num_targets = rows_RNT.shape
    ridge_P = np.full(num_features, penalty)
    ridge_P[0] = 1e-9
    wanted_NT = np.nan_to_num(losses_NT)
    solved_RPT = np.empty((num_replicates, num_features, num_targets))
    alike: dict[bytes, list[int]] = {}
    for target in range(num_targets):
        alike.setdefault(rows_RNT[:, :, target].tobytes(), []).append(target)
    for columns in alike.values():
        step = max(1, MOST_NUMBERS // (num_features * (num_runs + num_features + len(columns))))
        for begin in range(0, num_replicates, step):
            counted_RPN = features_NP.T * rows_RNT[begin : begin + step, None, :, columns[0]]
            normal_RPP = counted_RPN @ features_NP + np.diag(ridge_P)
            solved_RPT[begin : begin + step, :, columns] = np.linalg.solve(
                normal_RPP, counted_RPN @ wanted_NT[:, columns]
            )
    return solved_RPT
