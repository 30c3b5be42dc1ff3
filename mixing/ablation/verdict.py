"""Whether a mixture beats natural weights beyond noise, and which weights to take.

Two roads lead away from natural weights, and each has its test at 5 per cent:
the surrogate's optimum, if its expected gain, less what the choice of the best owes to chance, exceeds 1.645 standard
errors; else the best run that was trained, if it beats the runs at natural weights beyond seed noise, with Bonferroni's
correction for having looked at all runs. If neither does, natural weights stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ONE_SIDED = 1.645
LEVEL = 0.05


@dataclass(frozen=True)
class Gain:
    """An expected change of the objective against natural weights; negative is better.

    Attributes:
        expected: by the fit to all runs.
        corrected: less optimism: what can be expected of it.
        error: its standard error, of fit and surrogate together.
        low, high: 90 per cent interval around `corrected`.
        beats: whether even `high` is below zero.
    """

    expected: float
    corrected: float
    error: float
    low: float
    high: float
    beats: bool


def surrogate_gain(
    expected: float, gain_R: np.ndarray, optimism: float, held_out_error: float | None, noise: float | None
) -> Gain:
    """The gain that a surrogate promises, with all that speaks against it.

    Args:
        expected: objective at its optimum less at natural weights.
        gain_R: the same by each bootstrap.
        optimism: of choosing the best (`optimum.Uncertainty`).
        held_out_error: root mean square of the objective on held-out runs; what seed noise does not explain of it is
            the surrogate's own error, which no bootstrap shows.
        noise: SD of the objective over seeds, None where unknown.
    """
    bias = math.sqrt(max(0.0, (held_out_error or 0.0) ** 2 - (noise or 0.0) ** 2))
    error = math.sqrt(float(gain_R.var()) + bias**2)
    corrected = min(0.0, expected) + optimism
    low, high = corrected - ONE_SIDED * error, corrected + ONE_SIDED * error
    return Gain(expected, corrected, error, low, high, high < 0)


def best_run(values_N: np.ndarray, natural_K: np.ndarray, noise: float | None, degrees: int) -> tuple[int, bool]:
    """The run with the least objective, and whether it beats natural weights beyond noise.

    Args:
        values_N: objective of the runs that may be chosen, each trained once; NaN for the others.
        natural_K: of the runs at natural weights.
        noise: SD over seeds; without it nothing can be said.
        degrees: of freedom of that SD.
    """
    from scipy.stats import t

    if not np.isfinite(values_N).any():
        return -1, False
    best = int(np.nanargmin(values_N))
    if noise is None or degrees < 1 or len(natural_K) == 0:
        return best, False
    tests = int(np.isfinite(values_N).sum())
    error = noise * math.sqrt(1 + 1 / len(natural_K))
    least = float(t.ppf(1 - LEVEL / tests, degrees)) * error
    return best, bool(values_N[best] - natural_K.mean() < -least)
