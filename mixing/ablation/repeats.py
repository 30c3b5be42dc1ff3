"""Repeated tokens count less: what a mixture is worth once its domains are read again and again.

Of a domain of U distinct tokens read p = w D / U times, p > 1, the passes after the first are worth less and less:
effective tokens U (1 + R (1 - exp(-(p - 1) / R))), with R = 15.39 passes. Source: Muennighoff et al. 2023,
arXiv:2305.16264, and their published fit. Surrogates then see effective tokens over the budget in place of weights.

R is weakly identified: the authors' own 182 runs fit slightly better at R = 95. So errors on held-out runs are shown
over a range of R, and a profile that is flat says that these runs cannot tell. Shapes: M mixtures, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PUBLISHED_HALF_LIFE = 15.387756  # passes
PROFILE = (2.0, 5.0, PUBLISHED_HALF_LIFE, 50.0, float("inf"))


@dataclass(frozen=True)
class Repeats:
    """How often mixtures repeat domains in the target run.

    Attributes:
        supply: distinct tokens of each domain (D,).
        budget_tokens: of the target run.
        half_life: R, passes; infinite where a repeated token is worth as much as a new one.
    """

    supply: np.ndarray
    budget_tokens: int
    half_life: float = PUBLISHED_HALF_LIFE

    def seen(self, weights_MD: np.ndarray) -> np.ndarray:
        """Effective tokens of each domain as shares of the budget, (M, D): weights as far as nothing is repeated."""
        passes_MD = weights_MD * self.budget_tokens / self.supply
        if not np.isfinite(self.half_life) or (passes_MD <= 1).all():
            return weights_MD
        again_MD = np.maximum(passes_MD - 1, 0.0)
        worth_MD = np.minimum(passes_MD, 1.0) + self.half_life * -np.expm1(-again_MD / self.half_life)
        seen_MD: np.ndarray = worth_MD * self.supply / self.budget_tokens
        return seen_MD


def repeats_of(domains: Sequence[str], supply: Mapping[str, float] | None, budget_tokens: int) -> Repeats | None:
    """The law for a target run; None where supply or budget are unknown."""
    if not supply or budget_tokens <= 0:
        return None
    return Repeats(np.array([float(supply[name]) for name in domains]), budget_tokens)


def identification(errors: Mapping[float, float], spread: float) -> str:
    """What a profile of held-out errors over R says, in words.

    Args:
        errors: root mean square error of the objective by R.
        spread: its standard error at the best R.
    """
    best = min(errors, key=lambda half_life: errors[half_life])
    tied = [half_life for half_life, error in errors.items() if error <= errors[best] + spread]
    listed = ", ".join(f"{half_life:g}: {error:.2%}" for half_life, error in errors.items())
    sentence = f"Effective tokens of repeats: held-out error of the objective by half-life in passes {listed}."
    if len(tied) == len(errors):
        return f"{sentence} These runs cannot tell them apart; the published {PUBLISHED_HALF_LIFE:.1f} was taken."
    among = ", ".join(f"{half_life:g}" for half_life in tied)
    return (
        f"{sentence} Within a standard error of the best: {among}; the published {PUBLISHED_HALF_LIFE:.1f} was taken."
    )
