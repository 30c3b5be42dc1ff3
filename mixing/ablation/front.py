"""The front of an objective of several domains: mixtures of which none is better for all of them.

The search for the equal sum ends where the sum is best, and leaves the ends of a front unseen. So every axis alone, and
weighted maxima between them (Chebyshev's scalarisation, which reaches dents of a front that no weighted sum does), are
searched for too. Shapes: M mixtures, D trained domains, A axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mixing.ablation.optimum import explore
from mixing.ablation.region import Region

Axes = Callable[[np.ndarray], np.ndarray]  # mixtures (M, D) -> log ratios (M, A)
BETWEEN = (0.15, 0.35, 0.5, 0.65, 0.85)  # of the way from one axis to another


def front_mixtures(axes: Axes, num_axes: int, region: Region, pool_MD: np.ndarray, seed: int) -> np.ndarray:
    """Allowed mixtures (M, D) along a front: the best few of every direction.

    Args:
        axes: what is made small.
        num_axes: of them.
        region: of allowed mixtures.
        pool_MD: where searches start.
        seed: of the searches.
    """
    found = []
    best_MA = axes(pool_MD)
    for place in range(num_axes):
        found.append(explore(lambda w_MD, at=place: axes(w_MD)[:, at], region, pool_MD, seed))  # type: ignore[misc]
    ends_MA = axes(np.concatenate(found))
    ideal_A, worst_A = np.minimum(best_MA.min(0), ends_MA.min(0)), ends_MA.max(0)
    reach_A = np.maximum(worst_A - ideal_A, 1e-9)
    start_MD = np.concatenate([pool_MD, *found])
    for shares_A in _directions(num_axes):

        def score(w_MD: np.ndarray, shares_A: np.ndarray = shares_A) -> np.ndarray:
            off_MA = (axes(w_MD) - ideal_A) / reach_A
            value_M: np.ndarray = (off_MA * shares_A).max(1) + 1e-3 * off_MA.sum(1)
            return value_M

        found.append(explore(score, region, start_MD, seed))
    return np.concatenate(found)


def _directions(num_axes: int) -> Iterator[np.ndarray]:
    """Shares of the axes between each two of them."""
    for first in range(num_axes):
        for second in range(first + 1, num_axes):
            for share in BETWEEN:
                shares_A = np.zeros(num_axes)
                shares_A[first], shares_A[second] = share, 1 - share
                yield shares_A
