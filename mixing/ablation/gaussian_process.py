"""Gaussian-process surrogate: a plane in sqrt(w) plus a smooth deviation from it.

Length scale, share of the plane and noise are those of the highest marginal likelihood on a small grid, per domain; one
eigendecomposition serves all noise levels and all domains. Shapes as in `linear`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixing.ablation.linear import Predict, clip_to_observed, moments

LENGTHS = (0.35, 0.6, 1.0, 2.0)  # in Hellinger distance, which is at most sqrt(2)
PLANES = (0.3, 3.0)  # variance of the plane's slopes, in variances of the deviation
NOISES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
MOST_TUNED = 160  # runs that tune; all runs fit
MANY_REPLICATES = 40


@dataclass(frozen=True)
class _Choice:
    """Hyperparameters of one domain."""

    length: float
    plane: float
    noise: float


def fit_gaussian_process(weights_ND: np.ndarray, losses_NT: np.ndarray, rows_RNT: np.ndarray) -> Predict:
    """A Gaussian process per replicate and domain; with many replicates, hyperparameters are those of all runs."""
    roots_ND = np.sqrt(weights_ND)
    mean_RT, sd_RT = moments(losses_NT, rows_RNT)
    scaled_RNT = (np.nan_to_num(losses_NT)[None] - mean_RT[:, None]) / sd_RT[:, None]
    shared: list[_Choice] | None = None
    if len(rows_RNT) > MANY_REPLICATES:
        whole_NT = np.minimum(rows_RNT.sum(0), 1)
        mean_1T, sd_1T = moments(losses_NT, whole_NT[None])
        shared = _tune(roots_ND, (np.nan_to_num(losses_NT) - mean_1T) / sd_1T, whole_NT)
    fits = []
    for scaled_NT, rows_NT in zip(scaled_RNT, rows_RNT, strict=True):
        choices = shared or _tune(roots_ND, scaled_NT, rows_NT)
        fits.append((choices, _coefficients(roots_ND, scaled_NT, rows_NT, choices)))
    low_R1T, high_R1T = clip_to_observed(losses_NT, rows_RNT)

    def predict(mixtures_MD: np.ndarray) -> np.ndarray:
        roots_MD = np.sqrt(mixtures_MD)
        predicted_RMT = np.empty((len(fits), len(mixtures_MD), losses_NT.shape[1]))
        for choice in sorted({c for choices, _ in fits for c in choices}, key=repr):
            kernel_MN = _kernel(roots_MD, roots_ND, choice.length, choice.plane)
            for r, (choices, dual_NT) in enumerate(fits):
                columns = [t for t, own in enumerate(choices) if own == choice]
                if columns:
                    predicted_RMT[r][:, columns] = kernel_MN @ dual_NT[:, columns]
        return np.clip(mean_RT[:, None] + sd_RT[:, None] * predicted_RMT, low_R1T, high_R1T)

    return predict


def _kernel(left_MD: np.ndarray, right_ND: np.ndarray, length: float, plane: float) -> np.ndarray:
    """Covariance of standardised losses: of the deviation, of the plane's slopes, of its intercept."""
    inner_MN = left_MD @ right_ND.T
    squares_MN = np.square(left_MD).sum(1)[:, None] + np.square(right_ND).sum(1) - 2 * inner_MN
    kernel_MN: np.ndarray = np.exp(-0.5 * np.maximum(squares_MN, 0) / length**2) + plane * inner_MN + 1.0
    return kernel_MN


def _patterns(rows_NT: np.ndarray) -> list[tuple[np.ndarray, list[int]]]:
    """Domains that count the same runs equally often share their matrices: (counts_N, columns)."""
    groups: dict[bytes, list[int]] = {}
    for column in range(rows_NT.shape[1]):
        groups.setdefault(rows_NT[:, column].tobytes(), []).append(column)
    return [(rows_NT[:, columns[0]], columns) for columns in groups.values()]


def _tune(roots_ND: np.ndarray, scaled_NT: np.ndarray, rows_NT: np.ndarray) -> list[_Choice]:
    """Hyperparameters of the highest marginal likelihood for each domain."""
    choices = [_Choice(LENGTHS[-1], PLANES[0], NOISES[-1])] * scaled_NT.shape[1]
    for counts_N, columns in _patterns(rows_NT):
        used = np.flatnonzero(counts_N > 0)
        used = used[np.linspace(0, len(used) - 1, min(len(used), MOST_TUNED)).astype(int)]
        if len(used) < 3:
            continue
        best_K = np.full(len(columns), -np.inf)
        for length in LENGTHS:
            for plane in PLANES:
                values_N, vectors_NN = np.linalg.eigh(_kernel(roots_ND[used], roots_ND[used], length, plane))
                projected_NK = vectors_NN.T @ scaled_NT[used][:, columns]
                for noise in NOISES:
                    for k, value in enumerate(_log_likelihood(np.maximum(values_N, 0), projected_NK, noise)):
                        if value > best_K[k]:
                            best_K[k] = value
                            choices[columns[k]] = _Choice(length, plane, noise)
    return choices


def _log_likelihood(values_N: np.ndarray, projected_NK: np.ndarray, noise: float) -> np.ndarray:
    """Marginal likelihood up to a constant, the overall variance at its best value; noise as a share of it."""
    spectrum_N = values_N + noise
    variance_K = np.maximum((np.square(projected_NK) / spectrum_N[:, None]).mean(0), 1e-12)
    likelihood_K: np.ndarray = -0.5 * (len(values_N) * np.log(variance_K) + np.log(spectrum_N).sum())
    return likelihood_K


def _coefficients(
    roots_ND: np.ndarray, scaled_NT: np.ndarray, rows_NT: np.ndarray, choices: list[_Choice]
) -> np.ndarray:
    """Dual coefficients (N, T); a run that counts twice has half the noise, one that does not count has none."""
    dual_NT = np.zeros_like(scaled_NT)
    for counts_N, columns in _patterns(rows_NT):
        used = np.flatnonzero(counts_N > 0)
        for choice in sorted({choices[c] for c in columns}, key=repr):
            own = [c for c in columns if choices[c] == choice]
            kernel_NN = _kernel(roots_ND[used], roots_ND[used], choice.length, choice.plane)
            kernel_NN[np.diag_indices(len(used))] += choice.noise / counts_N[used]
            dual_NT[np.ix_(used, np.array(own))] = np.linalg.solve(kernel_NN, scaled_NT[used][:, own])
    return dual_NT
