"""Whether a mixture beats natural weights beyond noise, and which weights to take.

Two roads lead away from natural weights, and each has its test at 5 per cent:
the surrogate's optimum, if its expected gain, less what the choice of the best owes to chance, exceeds a one-sided
t-quantile of standard errors. The error joins that of the fit, with as many degrees of freedom as mixtures leave over
once a slope per domain is fitted, and what the seed of all drawn mixtures may have added, with those of the repeats;
else the best run that was trained, if it beats the runs at natural weights beyond seed noise, with Bonferroni's
correction for having looked at all runs. If neither does, natural weights stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class Noise:
    """Standard deviation of the objective over seeds, None where unknown, and its degrees of freedom."""

    sd: float | None
    degrees: int

    def at_least(self) -> float:
        """What the noise is with 95 per cent confidence: little is known of it from two or three seeds."""
        from scipy.stats import chi2

        if self.sd is None or self.degrees < 1:
            return 0.0
        return self.sd * math.sqrt(self.degrees / float(chi2.ppf(1 - LEVEL, self.degrees)))


@dataclass(frozen=True)
class Spare:
    """What runs leave over once a slope per domain and a level are fitted.

    Attributes:
        degrees: mixtures beyond the parameters, at least 1; seeds of one mixture tell no slope.
        inflation: the usual correction of a standard error, sqrt(runs / (runs - parameters)).
    """

    degrees: int
    inflation: float


def spare_of(num_runs: int, num_mixtures: int, num_domains: int) -> Spare:
    """How much a table of runs leaves over."""
    parameters = num_domains + 1
    return Spare(max(1, num_mixtures - parameters), math.sqrt(num_runs / max(1, num_runs - parameters)))


def surrogate_gain(
    expected: float,
    gain_R: np.ndarray,
    optimism: float,
    held_out_error: float | None,
    noise: Noise,
    spare: Spare,
    seeds: float = 0.0,
) -> Gain:
    """The gain that a surrogate promises, with all that speaks against it.

    Args:
        expected: objective at its optimum less at natural weights.
        gain_R: the same by each bootstrap.
        optimism: of choosing the best (`optimum.Uncertainty`).
        held_out_error: root mean square of the objective on held-out runs; what seed noise does not explain of it is
            the surrogate's own error, which no bootstrap shows.
        noise: of the objective over seeds.
        spare: what the runs leave over once a surrogate is fitted: little of it makes bootstraps too sure.
        seeds: variance that the drawn mixtures' seeds may have added (`seeds.SeedEffect`).
    """
    from scipy.stats import t

    bias = math.sqrt(max(0.0, (held_out_error or 0.0) ** 2 - noise.at_least() ** 2))
    fit = spare.inflation**2 * float(gain_R.var()) + bias**2
    error = math.sqrt(fit + seeds)
    corrected = min(0.0, expected + optimism)  # the best of what cannot be told apart is expected to bring nothing
    reach = float(t.ppf(1 - LEVEL, _degrees((fit, spare.degrees), (seeds, max(1, noise.degrees))))) * error
    low, high = corrected - reach, corrected + reach
    return Gain(expected, corrected, error, low, high, high < 0)


def _degrees(*parts: tuple[float, int]) -> float:
    """Degrees of freedom of a sum of variances (Welch and Satterthwaite): at least the least of its parts'."""
    total = sum(variance for variance, _ in parts)
    if not total > 0:
        return parts[0][1]
    return total**2 / sum(variance**2 / degrees for variance, degrees in parts)


def best_run(values_N: np.ndarray, natural_K: np.ndarray, noise: Noise) -> tuple[int, bool]:
    """The run with the least objective, and whether it beats natural weights beyond noise.

    Args:
        values_N: objective of the runs that may be chosen, each trained once; NaN for the others.
        natural_K: of the runs at natural weights that measured it.
        noise: over seeds; where it is unknown nothing can be said.
    """
    from scipy.stats import t

    if not np.isfinite(values_N).any():
        return -1, False
    best = int(np.nanargmin(values_N))
    if noise.sd is None or noise.degrees < 1 or len(natural_K) == 0:
        return best, False
    tests = int(np.isfinite(values_N).sum())
    error = noise.sd * math.sqrt(1 + 1 / len(natural_K))
    least = float(t.ppf(1 - LEVEL / tests, noise.degrees)) * error
    return best, bool(values_N[best] - natural_K.mean() < -least)
