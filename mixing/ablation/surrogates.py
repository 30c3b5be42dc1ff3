"""The portfolio of surrogates: mixture in, held-out loss of every domain out.

    constant           the mean
    linear             a plane in w
    ridge_sqrt         ridge regression on sqrt(w)
    exponential        c + exp(b + t . w)
    exponential_sqrt   c + exp(b + t . sqrt(w))
    gaussian_process   a plane in sqrt(w) and a smooth deviation
    lightgbm           boosted trees
    combination        a weighted mean of those, the weights from held-out predictions (`validation`)

All have the shape `fit(weights_ND, losses_NT, rows_RNT) -> predict` that `linear` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mixing.ablation.exponential import fit_exponential, fit_exponential_sqrt
from mixing.ablation.gaussian_process import fit_gaussian_process
from mixing.ablation.linear import Predict, fit_constant, fit_linear, fit_ridge_sqrt
from mixing.ablation.trees import fit_trees

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Predict]

FITS: dict[str, Fit] = {
    "constant": fit_constant,
    "linear": fit_linear,
    "ridge_sqrt": fit_ridge_sqrt,
    "exponential": fit_exponential,
    "exponential_sqrt": fit_exponential_sqrt,
    "gaussian_process": fit_gaussian_process,
    "lightgbm": fit_trees,
}
COMBINATION = "combination"
NAMES = (*FITS, COMBINATION)
SIMPLE = ("constant", "ridge_sqrt", "gaussian_process")  # what is defensible with few runs
TREES_NEED = 40
LEAST_MIXTURES = 3


class SurrogateError(ValueError):
    """A surrogate that does not exist."""


def usable(num_mixtures: int, num_domains: int, wanted: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Which surrogates so many mixtures can carry, and why others are left out, in words.

    Laws with a slope per domain need twice as many runs as domains (on Olmix's 64 domains every one of them failed at
    64 runs, and worked at 128); trees with fewer than 40 runs hardly split.
    """
    from difflib import get_close_matches

    for name in wanted:
        if name not in NAMES:
            close = get_close_matches(name, NAMES, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SurrogateError(f"surrogate {name!r} is not one of {', '.join(NAMES)}{hint}")
    names = [name for name in FITS if not wanted or name in wanted or COMBINATION in wanted or name == "constant"]
    notes = []
    if num_mixtures < LEAST_MIXTURES:
        return ["constant"], [f"Too few different mixtures for any surrogate: {num_mixtures}."]
    if num_mixtures < 2 * num_domains:
        notes.append(
            f"{num_mixtures} different mixtures for {num_domains} domains: laws with a slope per domain need at least "
            f"{2 * num_domains}, better {4 * num_domains}. Only {', '.join(SIMPLE)} were fitted."
        )
        names = [name for name in names if name in SIMPLE] + [name for name in SIMPLE if name not in names]
    elif num_mixtures < TREES_NEED and "lightgbm" in names:
        names.remove("lightgbm")
        notes.append(
            f"{num_mixtures} different mixtures are too few for trees ({TREES_NEED} at least): lightgbm was left out."
        )
    return names, notes


def all_rows(losses_NT: np.ndarray) -> np.ndarray:
    """Every measured loss once: the replicate (1, N, T) of a fit to everything."""
    rows_1NT: np.ndarray = np.isfinite(losses_NT).astype(np.float64)[None]
    return rows_1NT


def combined(predictions: Mapping[str, Predict], shares: Mapping[str, float]) -> Predict:
    """A weighted mean of surrogates.

    A member with fewer replicates than the others (trees are too slow for 200 bootstraps) is used in turn.
    """
    members = [name for name, share in shares.items() if share > 0]

    def predict(mixtures_MD: np.ndarray) -> np.ndarray:
        parts = [predictions[name](mixtures_MD) for name in members]
        most = max(len(part) for part in parts)
        total = np.zeros((most, *parts[0].shape[1:]))
        for name, part in zip(members, parts, strict=True):
            total += shares[name] * part[np.arange(most) % len(part)]
        return total

    return predict
