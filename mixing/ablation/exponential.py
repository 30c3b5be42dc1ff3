"""Exponential laws of the loss, in w and in sqrt(w): loss = c + exp(b + t . f(w)).

In w this is the law of Data Mixing Laws (Ye et al. 2024, arXiv:2403.16952) and of Olmix. In sqrt(w) its slope at w = 0
is steep, as losses are: the first few tokens of a domain teach the most.

All replicates and domains are fitted at once by Levenberg-Marquardt with the analytic Jacobian: the normal matrices of
a step are one matrix product, so that 200 bootstraps of a small table cost about a second. Residuals are in standard
deviations of the domain's loss and count by Huber's function; `t` carries a ridge. Shapes as in `linear`, with
B = R * T problems and Q parameters (c, b, t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixing.ablation.linear import Predict, clip_to_observed, moments

HUBER = 0.3  # standard deviations; beyond this a residual counts linearly
RIDGE = 1e-3  # best or within 3% of the best of 1e-4 to 1e-2, by folds inside RegMix subsets of 24 to 192 runs
FLOOR_RIDGE = 1e-4  # on c, in standard deviations: without it a law that is all but linear sends c to minus infinity
STARTS = (0.05, 0.5, 3.0)  # c starts so many standard deviations below the least loss
MAX_STEPS = 60
WARM_STEPS = 25
MANY_REPLICATES = 40
MOST_EXPONENT = 10.0
LEAST_EXPONENT = -30.0
CHUNK = 256


@dataclass(frozen=True)
class _Problems:
    """B weighted least-squares problems on the same features; losses in standard deviations around their mean."""

    features: np.ndarray  # the first column is 1: b is its coefficient
    losses: np.ndarray
    counts: np.ndarray
    ridge: np.ndarray

    def some(self, picked_B: np.ndarray) -> _Problems:
        return _Problems(self.features, self.losses[picked_B], self.counts[picked_B], self.ridge)


def fit_exponential(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """C + exp(b + t . w) per domain."""
    return fit_law(weights_ND, losses_NT, rows_RNT, np.asarray)


def fit_exponential_sqrt(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """C + exp(b + t . sqrt(w)) per domain."""
    return fit_law(weights_ND, losses_NT, rows_RNT, np.sqrt)


def fit_law(
    weights_ND: np.ndarray,
    losses_NT: np.ndarray,
    rows_RNT: np.ndarray,
    transform: Callable[[np.ndarray], np.ndarray],
    ridge: float = RIDGE,
) -> Predict:
    """Fit c + exp(b + t . transform(w)) for every replicate and domain, from several starts, the best kept.

    With many replicates (bootstraps) all start from the fit to all runs instead: they differ little from it.
    """
    features_NP = np.concatenate([np.ones((len(weights_ND), 1)), transform(weights_ND)], axis=1)
    problems, mean_RT, sd_RT = _standardised(features_NP, losses_NT, rows_RNT, ridge)
    if len(rows_RNT) <= MANY_REPLICATES:
        solved_BQ = _solve_from_starts(problems)
    else:
        whole, mean_1T, sd_1T = _standardised(features_NP, losses_NT, np.minimum(rows_RNT.sum(0), 1)[None], ridge)
        start_RTQ = np.tile(_solve_from_starts(whole), (len(rows_RNT), 1, 1))
        start_RTQ[..., 0] = (mean_1T + sd_1T * start_RTQ[..., 0] - mean_RT) / sd_RT
        start_RTQ[..., 1] += np.log(sd_1T / sd_RT)
        solved_BQ = _solve(problems, start_RTQ.reshape(-1, start_RTQ.shape[-1]), WARM_STEPS)[0]
    low_R1T, high_R1T = clip_to_observed(losses_NT, rows_RNT)
    solved_RTQ = solved_BQ.reshape(*mean_RT.shape, -1)

    def predict(mixtures_MD: np.ndarray) -> np.ndarray:
        exponent_RMT = transform(mixtures_MD) @ solved_RTQ[..., 2:].transpose(0, 2, 1) + solved_RTQ[:, None, :, 1]
        law_RMT = solved_RTQ[:, None, :, 0] + np.exp(np.clip(exponent_RMT, LEAST_EXPONENT, MOST_EXPONENT))
        clipped_RMT: np.ndarray = np.clip(mean_RT[:, None] + sd_RT[:, None] * law_RMT, low_R1T, high_R1T)
        return clipped_RMT

    return predict


def _standardised(
    features_NP: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray, ridge: float
) -> tuple[_Problems, np.ndarray, np.ndarray]:
    """The problems of all replicates and domains, with the mean and the spread (R, T) that their losses had."""
    mean_RT, sd_RT = moments(losses_NT, rows_RNT)
    scaled_RTN = (np.nan_to_num(losses_NT).T[None] - mean_RT[..., None]) / sd_RT[..., None]
    ridge_Q = np.full(features_NP.shape[1] + 1, ridge)
    ridge_Q[:2] = FLOOR_RIDGE, 0.0
    num_runs = len(losses_NT)
    counts_BN = rows_RNT.transpose(0, 2, 1).reshape(-1, num_runs).astype(np.float64)
    return _Problems(features_NP, scaled_RTN.reshape(-1, num_runs), counts_BN, ridge_Q), mean_RT, sd_RT


def _solve_from_starts(problems: _Problems) -> np.ndarray:
    """The best of all starts for each problem, (B, Q)."""
    best_BQ: np.ndarray | None = None
    best_B: np.ndarray | None = None
    for below in STARTS:
        solved_BQ, cost_B = _solve(problems, _start(problems, below), MAX_STEPS)
        if best_BQ is None or best_B is None:
            best_BQ, best_B = solved_BQ, cost_B
        else:
            better_B = cost_B < best_B
            best_BQ = np.where(better_B[:, None], solved_BQ, best_BQ)
            best_B = np.where(better_B, cost_B, best_B)
    assert best_BQ is not None
    return best_BQ


def _start(problems: _Problems, below: float) -> np.ndarray:
    """A start: c below all losses, then ridge regression of log(loss - c)."""
    least_B = np.where(problems.counts > 0, problems.losses, np.inf).min(1)
    floor_B = np.where(np.isfinite(least_B), least_B, 0.0) - below
    logs_BN = np.log(np.maximum(problems.losses - floor_B[:, None], 1e-3))
    normal_BPP = _weighted_outer(problems.features, problems.counts)
    normal_BPP += np.diag(np.r_[1e-9, problems.ridge[2:]])
    right_BP = (problems.counts * logs_BN) @ problems.features
    return np.concatenate([floor_B[:, None], np.linalg.solve(normal_BPP, right_BP[..., None])[..., 0]], axis=1)


def _weighted_outer(features_NP: np.ndarray, weights_BN: np.ndarray) -> np.ndarray:
    """Sum over runs of weight * f f', as one matrix product: (B, P, P)."""
    num_runs, num_features = features_NP.shape
    outer_NPP = (features_NP[:, :, None] * features_NP[:, None]).reshape(num_runs, -1)
    sums_BPP: np.ndarray = (weights_BN @ outer_NPP).reshape(-1, num_features, num_features)
    return sums_BPP


def _solve(problems: _Problems, start_BQ: np.ndarray, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on every problem: parameters (B, Q) and costs (B,).

    Problems that no longer gain leave; chunks keep the arrays in the processor's cache.
    """
    solved_BQ, cost_B = start_BQ.copy(), np.empty(len(start_BQ))
    for first in range(0, len(start_BQ), CHUNK):
        chunk = np.arange(first, min(first + CHUNK, len(start_BQ)))
        solved_BQ[chunk], cost_B[chunk] = _solve_chunk(problems.some(chunk), solved_BQ[chunk], max_steps)
    return solved_BQ, cost_B


def _solve_chunk(problems: _Problems, params_BQ: np.ndarray, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    damping_B = np.full(len(params_BQ), 1e-3)
    cost_B = _cost(problems, params_BQ)
    active = np.arange(len(params_BQ))
    for _ in range(max_steps):
        some = problems.some(active)
        moved_BQ = params_BQ[active] - _step(some, params_BQ[active], damping_B[active])
        moved_B = _cost(some, moved_BQ)
        gain_B = cost_B[active] - moved_B
        accepted = gain_B > 0
        params_BQ[active[accepted]] = moved_BQ[accepted]
        damping_B[active] = np.where(accepted, damping_B[active] * 0.2, damping_B[active] * 6)
        ended = (accepted & (gain_B < 1e-7 * cost_B[active])) | (damping_B[active] > 1e8)
        cost_B[active[accepted]] = moved_B[accepted]
        active = active[~ended]
        if not len(active):
            break
    return params_BQ, cost_B


def _residuals(problems: _Problems, params_BQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals and exponentials, each (B, N)."""
    exponent_BN = np.clip(params_BQ[:, 1:] @ problems.features.T, LEAST_EXPONENT, MOST_EXPONENT)
    exponential_BN = np.exp(exponent_BN)
    return params_BQ[:, :1] + exponential_BN - problems.losses, exponential_BN


def _cost(problems: _Problems, params_BQ: np.ndarray) -> np.ndarray:
    size_BN = np.abs(_residuals(problems, params_BQ)[0])
    huber_BN = np.where(size_BN <= HUBER, 0.5 * np.square(size_BN), HUBER * (size_BN - 0.5 * HUBER))
    cost_B: np.ndarray = (problems.counts * huber_BN).sum(1) + 0.5 * np.square(params_BQ) @ problems.ridge
    return cost_B


def _step(problems: _Problems, params_BQ: np.ndarray, damping_B: np.ndarray) -> np.ndarray:
    """The damped Gauss-Newton step of the reweighted problem, (B, Q). The Jacobian's rows are (1, e, e * f(w))."""
    residual_BN, exponential_BN = _residuals(problems, params_BQ)
    weight_BN = problems.counts * np.minimum(1.0, HUBER / np.maximum(np.abs(residual_BN), 1e-12))
    slope_BN = weight_BN * exponential_BN
    num_problems, num_params = params_BQ.shape
    normal_BQQ = np.empty((num_problems, num_params, num_params))
    normal_BQQ[:, 0, 0] = weight_BN.sum(1)
    normal_BQQ[:, 0, 1:] = normal_BQQ[:, 1:, 0] = slope_BN @ problems.features
    normal_BQQ[:, 1:, 1:] = _weighted_outer(problems.features, slope_BN * exponential_BN)
    diagonal = np.arange(num_params)
    normal_BQQ[:, diagonal, diagonal] += problems.ridge
    normal_BQQ[:, diagonal, diagonal] *= 1 + damping_B[:, None]
    normal_BQQ[:, diagonal, diagonal] += 1e-10
    gradient_BQ = params_BQ * problems.ridge
    gradient_BQ[:, 0] += (weight_BN * residual_BN).sum(1)
    gradient_BQ[:, 1:] += (slope_BN * residual_BN) @ problems.features
    step_BQ: np.ndarray = np.linalg.solve(normal_BQQ, gradient_BQ[..., None])[..., 0]
    return step_BQ
