"""The mixture that a surrogate expects most of, inside the region; how sure that is, and what is tied with it.

The search needs values only, so that laws, trees and their mean are treated alike: a pool of allowed mixtures, clouds
around the best that shrink, then exchanges of weight between pairs of domains until none helps. Shapes as in `linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixing.ablation.region import Region, is_inside, repair
from mixing.ablation.sampling import generator, rounded

Score = Callable[[np.ndarray], np.ndarray]  # mixtures (M, D) -> objective (M,)
CLOUDS = (0.8, 0.5, 0.3, 0.2, 0.1, 0.05)
CLOUD_SIZE = 256
PARENTS = 16
EXCHANGES = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
MOST_EXCHANGES = 60
MOST_IN_EXCHANGE = 24  # domains on each side of an exchange


def minimise(score: Score, region: Region, pool_MD: np.ndarray, seed: int) -> np.ndarray:
    """The allowed mixture (D,) with the least score, six digits."""
    best_D = explore(score, region, pool_MD, seed)[0]
    return rounded(_exchange(score, region, best_D))


def explore(score: Score, region: Region, pool_MD: np.ndarray, seed: int) -> np.ndarray:
    """Good allowed mixtures, best first: the pool's best, and clouds around them that shrink."""
    chance = generator(seed, "clouds")
    best_MD = _best(score, pool_MD, PARENTS)
    for width in CLOUDS:
        parents_MD = best_MD[chance.integers(0, len(best_MD), CLOUD_SIZE)]
        cloud_MD = parents_MD + 1e-4
        cloud_MD = cloud_MD * np.exp(width * 2 * chance.standard_normal(cloud_MD.shape))
        cloud_MD = np.where(cloud_MD < 1e-4, 0.0, cloud_MD)
        cloud_MD = repair(region, cloud_MD)
        cloud_MD = cloud_MD[is_inside(region, cloud_MD)]
        best_MD = _best(score, np.concatenate([best_MD, cloud_MD]), PARENTS)
    return best_MD


def _best(score: Score, mixtures_MD: np.ndarray, number: int) -> np.ndarray:
    return mixtures_MD[np.argsort(score(mixtures_MD), kind="stable")[:number]]


def _exchange(score: Score, region: Region, weights_D: np.ndarray) -> np.ndarray:
    """Move weight from one domain to another while that lowers the score, in ever smaller amounts."""
    value = float(score(weights_D[None])[0])
    givers, takers = _pairs(score, weights_D)
    if len(givers) == 0:
        return weights_D
    steps = 0
    for amount in EXCHANGES:
        while steps < MOST_EXCHANGES:
            steps += 1
            moved_MD = np.repeat(weights_D[None], len(givers), axis=0)
            given_M = np.minimum(amount, weights_D[givers])
            moved_MD[np.arange(len(givers)), givers] -= given_M
            moved_MD[np.arange(len(givers)), takers] += given_M
            moved_MD = moved_MD[is_inside(region, moved_MD, 1e-9)]
            if not len(moved_MD):
                break
            values_M = score(moved_MD)
            best = int(np.argmin(values_M))
            if values_M[best] >= value - 1e-9:
                break
            weights_D, value = moved_MD[best], float(values_M[best])
    return weights_D


def _pairs(score: Score, weights_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Domains that give and that take: all pairs, of many domains the heaviest and those that the score likes most."""
    num_domains = len(weights_D)
    if num_domains <= MOST_IN_EXCHANGE:
        givers, takers = np.nonzero(~np.eye(num_domains, dtype=bool))
        return givers, takers
    heaviest_G = np.argsort(-weights_D, kind="stable")[:MOST_IN_EXCHANGE]
    moved_DD = (1 - EXCHANGES[0]) * weights_D + EXCHANGES[0] * np.eye(num_domains)
    liked_T = np.argsort(score(moved_DD), kind="stable")[:MOST_IN_EXCHANGE]
    givers, takers = (side.reshape(-1) for side in np.meshgrid(heaviest_G, liked_T, indexing="ij"))
    return givers[givers != takers], takers[givers != takers]


@dataclass(frozen=True)
class Uncertainty:
    """What the replicates of a surrogate say of an optimum.

    Attributes:
        optima: each replicate's own optimum.
        gains: objective at the optimum less at natural, by each replicate of the fit alone.
        optimism: how much better a replicate believes its own optimum to be than the fit to all runs does (>= 0): what
            the choice of the best owes to chance.
        low, high: 5th and 95th percentile of each weight.
        tied: which of the candidates are statistically as good as the optimum.
    """

    optima: np.ndarray
    gains: np.ndarray
    optimism: float
    low: np.ndarray
    high: np.ndarray
    tied: np.ndarray


def uncertainty(
    values_RM: np.ndarray,
    whole_M: np.ndarray,
    candidates_MD: np.ndarray,
    optimum: int,
    natural: int,
    seeds_RM: np.ndarray | None = None,
) -> Uncertainty:
    """Read off replicates' values at shared candidates how sure an optimum is.

    Args:
        values_RM: objective of each candidate by each replicate.
        whole_M: by the fit to all runs.
        candidates_MD: allowed mixtures.
        optimum: row of the optimum.
        natural: row of natural weights, or of what is nearest to them.
        seeds_RM: what other seeds might have added (`seeds.SeedEffect.drawn`): part of everything but `gains`.
    """
    gain_R = values_RM[:, optimum] - values_RM[:, natural]
    values_RM = values_RM if seeds_RM is None else values_RM + seeds_RM
    own_R = np.argmin(values_RM, axis=1)
    rows = np.arange(len(values_RM))
    believed_R = values_RM[rows, own_R] - values_RM[:, natural]
    truly_R = whole_M[own_R] - whole_M[natural]
    worse_RM = values_RM - values_RM[:, optimum : optimum + 1]
    margin_M = whole_M - whole_M[optimum]
    return Uncertainty(
        candidates_MD[own_R],
        gain_R,
        max(0.0, float((truly_R - believed_R).mean())),
        np.percentile(candidates_MD[own_R], 5, axis=0),
        np.percentile(candidates_MD[own_R], 95, axis=0),
        margin_M <= 1.645 * worse_RM.std(0) + 1e-12,
    )


def pareto_front(axes_MA: np.ndarray) -> np.ndarray:
    """Rows that no other row beats or equals on every axis (less is better), in order of the first axis."""
    left = np.lexsort(axes_MA.T[::-1])
    front: list[int] = []
    while len(left):
        front.append(int(left[0]))
        left = left[(axes_MA[left] < axes_MA[left[0]]).any(1)]
    return np.array(front, dtype=np.int64)
