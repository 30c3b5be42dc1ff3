"""Mixtures drawn at random: Dirichlet draws around natural weights, and greedy picks from a pool of them.

Each draw is keyed by (seed, kind, index) and, inside it, by the names of the domains: more runs, or domains in another
order, leave the draws as they are. Shapes: M mixtures, D domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import xxhash

from mixing.ablation.region import BoundsError, Region, is_inside, nearest, repair

STRENGTHS = tuple(float(s) for s in np.round(np.logspace(-1, np.log10(5), 15), 6))  # RegMix and Olmix: 0.1 to 5
TEMPERATURE = 0.5  # RegMix flattens the natural weights before it draws around them
MOST_OVER_NATURAL = 15.0  # RegMix: a draw that gives a domain more than 15 times its natural weight is drawn again
MOST_OF_A_RARE = 0.05  # what a draw may give to a domain however rare it is
LEAST_WEIGHT = 2e-4  # RegMix: below this a weight is zero
DUPLICATE_DISTANCE = 0.02  # total variation; closer draws teach nothing that a repeat would not
DIGITS = 6
TRIES = 200


def generator(*key: object) -> np.random.Generator:
    """A generator keyed by plain values, the same on every machine."""
    digest = xxhash.xxh3_128_intdigest("\x1f".join(str(part) for part in key))
    return np.random.Generator(np.random.Philox(key=digest))


def rounded(weights_D: np.ndarray) -> np.ndarray:
    """Weights with six digits that sum to 1 up to float rounding; the rest goes to the largest."""
    units_D = np.round(weights_D / weights_D.sum() * 10**DIGITS).astype(np.int64)
    units_D[int(np.argmax(units_D))] += 10**DIGITS - units_D.sum()
    result: np.ndarray = units_D / 10**DIGITS
    return result


def dirichlet_draws(region: Region, natural_D: np.ndarray, number: int, key: tuple[object, ...]) -> np.ndarray:
    """Mixtures drawn around flattened natural weights, none close to another, all inside the region.

    A draw picks one of 15 strengths from 0.1 (nearly one domain alone) to 5 (close to the prior). It is drawn again up
    to 200 times while it is outside the region, over 15 times natural somewhere (and over 5 %), one domain alone (a run
    of its own kind), or nearly a mixture drawn before; then it is moved inside, under those caps where bounds allow.

    Returns:
        Weights (number, D); row i depends on the rows before it, never on `number`.
    Source: RegMix (Liu et al. 2024, arXiv:2407.01492), synthesize_mixture.py; near-duplicates as in Olmix.
    """
    prior_D = natural_D**TEMPERATURE
    prior_D = prior_D / prior_D.sum()
    most_D = np.maximum(MOST_OVER_NATURAL * natural_D, MOST_OF_A_RARE)
    capped_region = _capped(region, most_D)
    drawn: list[np.ndarray] = []
    for index in range(number):
        fallback: np.ndarray | None = None
        for weights_D in _tries(region, prior_D, (*key, index)):
            fallback = weights_D if fallback is None else fallback
            capped = (weights_D <= most_D).all()
            mixed = len(natural_D) == 1 or weights_D.max() < 1
            if capped and mixed and is_inside(region, weights_D[None])[0] and _is_new(weights_D, drawn):
                break
        else:
            weights_D = _moved_inside(capped_region, fallback, (*key, index, "moved"))  # type: ignore[arg-type]
        drawn.append(weights_D)
    return np.array(drawn).reshape(number, len(natural_D))


def _capped(region: Region, most_D: np.ndarray) -> Region:
    """The region with a cap on every domain; itself where bounds ask for more of one."""
    try:
        capped = replace(region, caps=np.minimum(region.caps, most_D))
        nearest(capped, most_D)
    except BoundsError:
        return region
    return capped


def _tries(region: Region, prior_D: np.ndarray, key: tuple[object, ...]) -> Iterator[np.ndarray]:
    """Candidates of one draw; the gamma variates behind them are keyed by domain name."""
    strengths_M = np.array(STRENGTHS)[generator(*key, "strength").integers(0, len(STRENGTHS), TRIES)]
    gammas_MD = np.empty((TRIES, len(prior_D)))
    for column, domain in enumerate(region.domains):
        gammas_MD[:, column] = generator(*key, domain).standard_gamma(strengths_M * prior_D[column])
    for gammas_D in gammas_MD:
        # Small shapes underflow to zero everywhere now and then.
        if gammas_D.sum() > 0:
            weights_D = gammas_D / gammas_D.sum()
            yield rounded(np.where(weights_D < LEAST_WEIGHT, 0.0, weights_D))


def _is_new(weights_D: np.ndarray, drawn: Sequence[np.ndarray]) -> bool:
    return all(0.5 * np.abs(weights_D - other_D).sum() >= DUPLICATE_DISTANCE for other_D in drawn)


def _moved_inside(region: Region, weights_D: np.ndarray, key: tuple[object, ...]) -> np.ndarray:
    """A draw moved into the region, to a random depth: scaling alone would put every draw on the boundary."""
    inner_D = nearest(region, 0.5 * region.caps / region.caps.sum() + 0.5 * weights_D)
    edge_D = nearest(region, weights_D)
    depth = generator(*key).random()
    return rounded(depth * inner_D + (1 - depth) * edge_D)


def pool_of(region: Region, natural_D: np.ndarray, number: int, key: tuple[object, ...]) -> np.ndarray:
    """Many allowed mixtures at once, from close to natural to nearly one domain: candidates for designs and optima.

    Returns:
        Weights (at most number, D), all inside the region.
    """
    chance = generator(*key)
    mean_D = natural_D**TEMPERATURE
    mean_D = 0.5 * mean_D / mean_D.sum() + 0.5 / len(natural_D)
    strengths_M = np.exp(chance.uniform(np.log(0.3), np.log(20 * len(natural_D)), number))
    weights_MD = chance.standard_gamma(strengths_M[:, None] * mean_D)
    weights_MD = weights_MD[weights_MD.sum(1) > 0]
    weights_MD = weights_MD / weights_MD.sum(1, keepdims=True)
    near = len(weights_MD) // 4
    shares_M = chance.random(near)[:, None]
    weights_MD[:near] = shares_M * weights_MD[:near] + (1 - shares_M) * natural_D
    weights_MD = repair(region, weights_MD)
    inside_MD: np.ndarray = weights_MD[is_inside(region, weights_MD)]
    return inside_MD


def space_filling(taken_MD: np.ndarray, pool_MD: np.ndarray, number: int) -> np.ndarray:
    """Mixtures of the pool, each as far as possible from all taken before (in Hellinger distance, ties by place)."""
    roots_MD = np.sqrt(pool_MD)
    distance_M = np.full(len(pool_MD), np.inf)
    for taken_D in np.sqrt(taken_MD):
        distance_M = np.minimum(distance_M, np.linalg.norm(roots_MD - taken_D, axis=1))
    picked = []
    for _ in range(min(number, len(pool_MD))):
        picked.append(int(np.argmax(distance_M)))
        distance_M = np.minimum(distance_M, np.linalg.norm(roots_MD - roots_MD[picked[-1]], axis=1))
    return pool_MD[picked].reshape(-1, pool_MD.shape[1])


def d_optimal(taken_MD: np.ndarray, pool_MD: np.ndarray, number: int, ridge: float = 1e-2) -> np.ndarray:
    """Mixtures of the pool that in turn raise the determinant of the information on a law in sqrt(w) the most.

    The matrix determinant lemma: adding feature vector f multiplies det(M) by 1 + f' inv(M) f. None is taken twice: on
    one seed the second run of a mixture is a copy of the first.
    """
    features_MP = _features(pool_MD)
    taken_MP = _features(taken_MD)
    information_PP = taken_MP.T @ taken_MP + ridge * np.eye(features_MP.shape[1])
    picked: list[int] = []
    new_M = np.ones(len(pool_MD), dtype=bool)
    for taken_D in taken_MD:
        new_M &= 0.5 * np.abs(pool_MD - taken_D).sum(1) >= DUPLICATE_DISTANCE
    while len(picked) < number and new_M.any():
        gains_M = np.einsum("mp,mp->m", features_MP @ np.linalg.inv(information_PP), features_MP)
        picked.append(int(np.argmax(np.where(new_M, np.round(gains_M, 12), -np.inf))))
        new_M &= 0.5 * np.abs(pool_MD - pool_MD[picked[-1]]).sum(1) >= DUPLICATE_DISTANCE
        chosen_P = features_MP[picked[-1]]
        information_PP = information_PP + np.outer(chosen_P, chosen_P)
    return pool_MD[picked].reshape(-1, pool_MD.shape[1])


def _features(weights_MD: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(weights_MD), 1)), np.sqrt(weights_MD)], axis=1)
