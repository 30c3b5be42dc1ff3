"""How well surrogates predict runs that they have not seen: repeated K-fold cross-validation and what is read off it.

Runs of one mixture (repeats over seeds) stay in one fold, and the surrogate is chosen by the same folds; what choosing
costs is measured too: `nested` chooses inside the other folds and is scored on the one left out. Shapes as in `linear`,
with K repeats of the cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixing.ablation.objective import Objective
from mixing.ablation.sampling import generator
from mixing.ablation.surrogates import COMBINATION, FITS

NUM_FOLDS = 6
LOCAL_SHARE = 0.25  # rank correlation among the best quarter, where an optimum is looked for
LEAST_LOCAL = 6


@dataclass(frozen=True)
class Validation:
    """Held-out predictions of each surrogate, and the weights of their combination.

    Attributes:
        folds_KN: fold of each run in each repeat.
        predictions: per surrogate, held-out predictions (K, N, T).
        shares: weight of each surrogate in the combination, sum 1.
    """

    folds: np.ndarray
    predictions: dict[str, np.ndarray]
    shares: dict[str, float]


def folds_of(weights_ND: np.ndarray, repeats: int, seed: int, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """Fold of each run, (repeats, N); equal mixtures share a fold (unless there is one alone)."""
    mixture_N = mixtures_of(weights_ND)
    num_mixtures = int(mixture_N.max()) + 1
    folds = []
    for repeat in range(repeats):
        order = generator(seed, "folds", repeat).permutation(num_mixtures)
        fold_of = np.empty(num_mixtures, dtype=np.int64)
        fold_of[order] = np.arange(num_mixtures) % min(num_folds, num_mixtures)
        folds.append(fold_of[mixture_N])
    return np.array(folds)


def mixtures_of(weights_ND: np.ndarray) -> np.ndarray:
    """Number of each run's mixture, (N,): seeds of one share it (unless there is one mixture alone)."""
    _, mixture_N = np.unique(np.round(weights_ND, 6), axis=0, return_inverse=True)
    mixture_N = mixture_N.reshape(-1)
    return mixture_N if mixture_N.any() else np.arange(len(mixture_N))


def num_repeats(num_runs: int) -> int:
    """How many times over a table is cross-validated: one split of few runs says little."""
    return 3 if num_runs <= 64 else 2 if num_runs <= 160 else 1


def validate(
    names: Sequence[str], weights_ND: np.ndarray, losses_NT: np.ndarray, objective: Objective, repeats: int, seed: int
) -> Validation:
    """Cross-validate surrogates and, where there are several, their combination.

    Args:
        names: of the surrogates, without the combination.
        weights_ND: mixtures of the runs.
        losses_NT: their losses.
        objective: whose domains count in the combination.
        repeats: of the cross-validation; trees take part in the first only and stand for all.
        seed: of the folds.
    """
    folds_KN = folds_of(weights_ND, repeats, seed)
    predictions = {}
    for name in names:
        own_KN = folds_KN[:1] if name == "lightgbm" else folds_KN
        held_out = np.array([_held_out(name, weights_ND, losses_NT, folds_N) for folds_N in own_KN])
        predictions[name] = np.repeat(held_out, repeats, axis=0) if len(held_out) < repeats else held_out
    members = [name for name in names if name != "constant"]
    shares: dict[str, float] = {}
    if len(members) > 1:
        parts = [predictions[name] for name in members]
        weight_T = objective.shares
        shares = dict(zip(members, _shares(parts, losses_NT, np.ones(len(losses_NT), bool), weight_T), strict=True))
        predictions[COMBINATION] = _combined_held_out(parts, losses_NT, folds_KN, weight_T)
    return Validation(folds_KN, predictions, shares)


def _held_out(name: str, weights_ND: np.ndarray, losses_NT: np.ndarray, folds_N: np.ndarray) -> np.ndarray:
    """Predictions (N, T) of each run by a surrogate fitted without its fold; all folds are replicates of one fit."""
    num_folds = int(folds_N.max()) + 1
    kept_RN = folds_N[None] != np.arange(num_folds)[:, None]
    rows_RNT = kept_RN[..., None] * np.isfinite(losses_NT)[None]
    predicted_RNT = FITS[name](weights_ND, losses_NT, rows_RNT.astype(np.float64))(weights_ND)
    held_out: np.ndarray = predicted_RNT[folds_N, np.arange(len(folds_N))]
    return held_out


def _shares(
    parts: Sequence[np.ndarray], losses_NT: np.ndarray, used_N: np.ndarray, weight_T: np.ndarray
) -> list[float]:
    """Non-negative weights, summing to 1, of the mean of surrogates that errs least on some held-out runs.

    One set for all domains: a set per domain would fit noise. Errors are in standard deviations of the domain's loss.
    """
    from scipy.optimize import nnls

    measured_NT = np.isfinite(losses_NT[used_N])
    scale_T = np.sqrt(weight_T) / np.nanstd(losses_NT, axis=0).clip(1e-12)
    centre_T = np.nanmean(losses_NT, axis=0)
    columns = [np.concatenate([((p[used_N] - centre_T) * scale_T)[measured_NT] for p in part]) for part in parts]
    wanted = np.tile(((np.nan_to_num(losses_NT[used_N]) - centre_T) * scale_T)[measured_NT], len(parts[0]))
    shares, _ = nnls(np.stack(columns, axis=1), wanted)
    if shares.sum() <= 0:
        return [1 / len(parts)] * len(parts)
    return [float(share) for share in shares / shares.sum()]


def _combined_held_out(
    parts: Sequence[np.ndarray], losses_NT: np.ndarray, folds_KN: np.ndarray, weight_T: np.ndarray
) -> np.ndarray:
    """Held-out predictions (K, N, T) of the combination, its weights from the other folds."""
    combined_KNT = np.empty_like(parts[0])
    for repeat, folds_N in enumerate(folds_KN):
        for fold in range(int(folds_N.max()) + 1):
            out_N = folds_N == fold
            shares = _shares([part[repeat : repeat + 1] for part in parts], losses_NT, ~out_N, weight_T)
            combined_KNT[repeat, out_N] = sum(s * part[repeat, out_N] for s, part in zip(shares, parts, strict=True))
    return combined_KNT


def relative_errors(predicted_KNT: np.ndarray, losses_NT: np.ndarray) -> np.ndarray:
    """Mean squared error over variance of each domain's loss (T): 1 is no better than the mean, 0 is exact."""
    errors_T: np.ndarray = np.nanmean(np.square(predicted_KNT - losses_NT[None]), axis=(0, 1))
    shares_T: np.ndarray = errors_T / np.nanvar(losses_NT, axis=0).clip(1e-24)
    return shares_T


def choose(predictions: Mapping[str, np.ndarray], losses_NT: np.ndarray, objective: Objective) -> str:
    """The surrogate with the least held-out error over the objective's domains; ties go to the simpler."""
    errors = {
        name: float(np.round(relative_errors(part, losses_NT) @ objective.shares, 9))
        for name, part in predictions.items()
    }
    return min(errors, key=lambda name: errors[name])


def nested(
    validation: Validation,
    weights_ND: np.ndarray,
    losses_NT: np.ndarray,
    objective: Objective,
    allowed: Sequence[str],
) -> np.ndarray | None:
    """Held-out predictions (1, N, T) of the whole procedure: choosing and fitting without the fold that is predicted.

    For each fold, all surrogates are cross-validated on the other folds alone, the best of them (or of their
    combination, its weights found there too) is chosen, fitted to the other folds, and predicts the one left out.

    Args:
        validation: of the same runs; its first repeat has the folds.
        weights_ND: mixtures of the runs.
        losses_NT: their losses.
        objective: whose domains count.
        allowed: names that may be chosen.

    Returns:
        None for fewer than three folds, and where two of them hold all that is known of a domain: nothing would be left
        to choose by.
    """
    folds_N = validation.folds[0]
    num_folds = int(folds_N.max()) + 1
    known_FT = np.array([np.isfinite(losses_NT[folds_N == fold]).any(0) for fold in range(num_folds)])
    if num_folds < 3 or known_FT.sum(0).min() < 3:
        return None
    names = [name for name in validation.predictions if name != COMBINATION]
    members = [name for name in names if name != "constant"]
    without = {name: _without_pairs(name, weights_ND, losses_NT, folds_N) for name in names}
    nested_NT = np.empty_like(losses_NT)
    for fold in range(num_folds):
        out_N = folds_N == fold
        kept_N, others_N = ~out_N, folds_N[~out_N]
        # Predictions of the runs that are kept, each by a fit that saw neither its own fold nor the one left out.
        inner = {name: pairs_FFNT[fold, others_N, np.flatnonzero(kept_N)][None] for name, pairs_FFNT in without.items()}
        renumbered_N = others_N - (others_N > fold)
        losses_KT, outer = losses_NT[kept_N], {name: validation.predictions[name][0, out_N] for name in names}
        if COMBINATION in validation.predictions:
            parts, weight_T = [inner[name] for name in members], objective.shares
            shares = _shares(parts, losses_KT, np.ones(len(losses_KT), bool), weight_T)
            inner[COMBINATION] = _combined_held_out(parts, losses_KT, renumbered_N[None], weight_T)
            outer[COMBINATION] = sum(share * outer[name] for share, name in zip(shares, members, strict=True))
        nested_NT[out_N] = outer[choose({n: p for n, p in inner.items() if n in allowed}, losses_KT, objective)]
    return nested_NT[None]


def _without_pairs(name: str, weights_ND: np.ndarray, losses_NT: np.ndarray, folds_N: np.ndarray) -> np.ndarray:
    """Predictions (F, F, N, T) by a surrogate fitted without either of two folds."""
    num_folds = int(folds_N.max()) + 1
    first_P, second_P = np.triu_indices(num_folds, 1)
    kept_PN = (folds_N != first_P[:, None]) & (folds_N != second_P[:, None])
    rows_PNT = kept_PN[..., None] * np.isfinite(losses_NT)[None]
    predicted_PNT = FITS[name](weights_ND, losses_NT, rows_PNT.astype(np.float64))(weights_ND)
    without_FFNT = np.empty((num_folds, num_folds, *losses_NT.shape))
    without_FFNT[first_P, second_P] = without_FFNT[second_P, first_P] = predicted_PNT
    return without_FFNT


def scores(predicted_KNT: np.ndarray, losses_NT: np.ndarray, objective: Objective) -> dict[str, object]:
    """What a report shows of one surrogate, all on held-out runs.

    Returns:
        rank_correlation (mean over domains), rank_correlations, mae (nats) per domain, relative_error; of the
        objective: objective_rank_correlation, local_rank_correlation (the best quarter), objective_error (root mean
        square) and regret (objective of the run predicted best less the best run's). None where it is not defined.
    """
    observed_N = objective.of(losses_NT)
    finite_N = np.isfinite(observed_N)
    ranks = [[rank_correlation(p[:, t], losses_NT[:, t]) for p in predicted_KNT] for t in range(losses_NT.shape[1])]
    rank_T = [_mean(values) for values in ranks]
    values_KN = objective.of(predicted_KNT)[:, finite_N]
    observed_N = observed_N[finite_N]
    local = np.argsort(observed_N, kind="stable")[: max(LEAST_LOCAL, round(LOCAL_SHARE * len(observed_N)))]
    return {
        "rank_correlation": _mean(rank_T),
        "rank_correlations": dict(zip(objective.targets, rank_T, strict=True)),
        "mae": dict(
            zip(
                objective.targets,
                np.nanmean(np.abs(predicted_KNT - losses_NT[None]), axis=(0, 1)).tolist(),
                strict=True,
            )
        ),
        "relative_error": float(relative_errors(predicted_KNT, losses_NT) @ objective.shares),
        "objective_rank_correlation": _mean([rank_correlation(v, observed_N) for v in values_KN]),
        "local_rank_correlation": _mean([rank_correlation(v[local], observed_N[local]) for v in values_KN])
        if len(observed_N) >= 2 * LEAST_LOCAL
        else None,
        "objective_error": float(np.sqrt(np.square(values_KN - observed_N).mean())) if len(observed_N) else None,
        "regret": _mean([float(observed_N[int(np.argmin(v))] - observed_N.min()) for v in values_KN])
        if len(observed_N)
        else None,
    }


def local_error(held_out_KNT: np.ndarray, losses_NT: np.ndarray, objective: Objective) -> float | None:
    """Root mean square error of the objective on held-out runs, among the best quarter of them."""
    observed_N = objective.of(losses_NT)
    best = np.argsort(np.where(np.isfinite(observed_N), observed_N, np.inf), kind="stable")
    best = best[: max(LEAST_LOCAL, round(LOCAL_SHARE * len(best)))]
    errors_KN = (objective.of(held_out_KNT) - observed_N)[:, best]
    errors = errors_KN[np.isfinite(errors_KN)]
    return float(np.sqrt(np.square(errors).mean())) if len(errors) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def rank_correlation(left_N: np.ndarray, right_N: np.ndarray) -> float | None:
    """Spearman's correlation, ties at their mean rank; None for fewer than three pairs or a constant side."""
    finite = np.isfinite(left_N) & np.isfinite(right_N)
    left, right = _ranks(left_N[finite]), _ranks(right_N[finite])
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def _ranks(values_N: np.ndarray) -> np.ndarray:
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_ranks: np.ndarray = ((ends - counts + 1 + ends) / 2)[inverse_N.reshape(-1)]
    return mean_ranks


def learning_curve(
    name: str, weights_ND: np.ndarray, losses_NT: np.ndarray, objective: Objective, seed: int, draws: int = 8
) -> list[tuple[int, float]]:
    """Held-out error of the objective (root mean square) when only some of the mixtures are fitted.

    All seeds of a mixture are fitted or left out together: a surrogate knows a mixture of which it saw another seed.

    Returns:
        (runs, error) pairs; runs are the mixtures fitted times the mean number of seeds of one.
    """
    mixture_N = mixtures_of(weights_ND)
    num_mixtures = int(mixture_N.max()) + 1
    observed_N = objective.of(losses_NT)
    points = []
    for size in sorted({round(num_mixtures * share) for share in (0.4, 0.55, 0.7, 0.85)}):
        if size < 4 or size >= num_mixtures - 1:
            continue
        kept_RN = np.zeros((draws, len(weights_ND)))
        for draw in range(draws):
            kept = generator(seed, "curve", size, draw).permutation(num_mixtures)[:size]
            kept_RN[draw] = np.isin(mixture_N, kept)
        rows_RNT = kept_RN[..., None] * np.isfinite(losses_NT)[None]
        values_RN = objective.of(FITS[name](weights_ND, losses_NT, rows_RNT)(weights_ND))
        left_RN = (kept_RN == 0) & np.isfinite(observed_N)
        error = float(np.sqrt(np.square(values_RN - observed_N)[left_RN].mean()))
        points.append((round(size * len(weights_ND) / num_mixtures), error))
    return points
