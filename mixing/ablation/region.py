"""Which mixtures are allowed: shares of tokens with bounds on sums of patterns and a cap per domain.

Shapes: M mixtures, D domains, G bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixing.patterns import covers, members

SLACK = 1e-6  # weights are written with six digits


class BoundsError(ValueError):
    """Bounds that no mixture meets, or that name no domain."""


@dataclass(frozen=True)
class Region:
    """The allowed mixtures: `low_G <= groups_GD @ w <= high_G`, `0 <= w <= caps_D`, sum 1."""

    domains: tuple[str, ...]
    patterns: tuple[str, ...]
    groups: np.ndarray
    low: np.ndarray
    high: np.ndarray
    caps: np.ndarray


def make_region(
    domains: Sequence[str], bounds: Sequence[tuple[str, float, float]] = (), caps: Mapping[str, float] | None = None
) -> Region:
    """Bounds on sums of patterns, and caps on single domains, as arrays.

    Args:
        domains: the trained domains.
        bounds: (pattern, least, most) of the summed weight of what the pattern covers.
        caps: most weight of a domain; none where it is not named.

    Raises:
        BoundsError: for a pattern that covers no domain, and where no mixture meets all bounds and caps.
    """
    for pattern, _, _ in bounds:
        if not members(pattern, domains):
            raise BoundsError(f"bounds: {pattern!r} names no domain; domains: {', '.join(domains)}")
    groups = [[covers(pattern, domain) for domain in domains] for pattern, _, _ in bounds]
    region = Region(
        tuple(domains),
        tuple(pattern for pattern, _, _ in bounds),
        np.array(groups, dtype=np.float64).reshape(len(bounds), len(domains)),
        np.array([low for _, low, _ in bounds], dtype=np.float64),
        np.array([high for _, _, high in bounds], dtype=np.float64),
        np.array([min(1.0, (caps or {}).get(domain, 1.0)) for domain in domains]),
    )
    _check_not_empty(region)
    return region


def _check_not_empty(region: Region) -> None:
    """Raise unless some mixture is allowed; the quick look first, a linear programme where it is not enough."""
    even_D = region.caps / max(region.caps.sum(), 1e-300)
    if is_inside(region, repair(region, even_D[None]))[0]:
        return
    if _point_inside(region) is None:
        written = ", ".join(
            f"{pattern}: [{low:g}, {high:g}]"
            for pattern, low, high in zip(region.patterns, region.low, region.high, strict=True)
        )
        capped = [f"{d} <= {cap:.4g}" for d, cap in zip(region.domains, region.caps, strict=True) if cap < 1]
        raise BoundsError(
            f"no mixture meets the bounds {{{written}}}"
            + (f" and what the supply allows ({', '.join(capped)})" if capped else "")
            + "; widen the bounds"
            + (", raise domains.max_epochs or shorten the schedule" if capped else "")
        )


def _point_inside(region: Region) -> np.ndarray | None:
    """Any allowed mixture, by linear programming; None where there is none."""
    from scipy.optimize import linprog

    num_domains = len(region.domains)
    solved = linprog(
        np.zeros(num_domains),
        A_ub=np.vstack([region.groups, -region.groups]) if len(region.patterns) else None,
        b_ub=np.concatenate([region.high, -region.low]) if len(region.patterns) else None,
        A_eq=np.ones((1, num_domains)),
        b_eq=[1.0],
        bounds=[(0.0, cap) for cap in region.caps],
    )
    return np.asarray(solved.x) if solved.success else None


def is_inside(region: Region, weights_MD: np.ndarray, slack: float = SLACK) -> np.ndarray:
    """Whether each mixture is allowed, up to the last digit that weights are written with."""
    sums_MG = weights_MD @ region.groups.T
    met = ((sums_MG >= region.low - slack) & (sums_MG <= region.high + slack)).all(1)
    inside: np.ndarray = met & (weights_MD <= region.caps + slack).all(1) & (weights_MD >= -slack).all(1)
    return inside


def repair(region: Region, weights_MD: np.ndarray, rounds: int = 80) -> np.ndarray:
    """Move mixtures towards the region by scaling groups into their bounds in turn, keeping ratios inside a group.

    Each scaling is a projection in the sense of Kullback and Leibler, so that zeros stay zero unless a bound asks for
    weight on a group without any. What is still outside after all rounds is the caller's to drop.
    """
    weights_MD = weights_MD / weights_MD.sum(1, keepdims=True)
    outside = ~is_inside(region, weights_MD, 0.0)
    if not outside.any():
        return weights_MD
    moved_MD = weights_MD[outside]
    # A group without weight could never be scaled up, nor the rest of a mixture that is all in one group.
    moved_MD = 0.9999 * moved_MD + 0.0001 * region.caps / region.caps.sum()
    for _ in range(rounds):
        for group_D, low, high in zip(region.groups, region.low, region.high, strict=True):
            moved_MD = _scale_group(moved_MD, group_D, low, high)
        moved_MD = _lower_to_caps(moved_MD, region.caps)
        if is_inside(region, moved_MD, 1e-9).all():
            break
    weights_MD = weights_MD.copy()
    weights_MD[outside] = moved_MD
    return weights_MD


def _scale_group(weights_MD: np.ndarray, group_D: np.ndarray, low: float, high: float) -> np.ndarray:
    sums_M = weights_MD @ group_D
    wanted_M = np.clip(sums_M, low, high)
    inner_M = wanted_M / np.maximum(sums_M, 1e-300)
    outer_M = (1 - wanted_M) / np.maximum(1 - sums_M, 1e-300)
    factors_MD = np.where(group_D > 0, inner_M[:, None], outer_M[:, None])
    scaled_MD = np.where((wanted_M != sums_M)[:, None], weights_MD * factors_MD, weights_MD)
    normal: np.ndarray = scaled_MD / scaled_MD.sum(1, keepdims=True)
    return normal


def _lower_to_caps(weights_MD: np.ndarray, caps_D: np.ndarray) -> np.ndarray:
    """Cut weights at their caps and give the excess to the others in proportion (water filling)."""
    for _ in range(len(caps_D)):
        over_MD = weights_MD >= caps_D
        if not (weights_MD > caps_D * (1 + 1e-12)).any():
            break
        cut_MD = np.where(over_MD, caps_D, 0.0)
        free_MD = np.where(over_MD, 0.0, weights_MD)
        left_M = 1 - cut_MD.sum(1)
        scale_M = left_M / np.maximum(free_MD.sum(1), 1e-300)
        weights_MD = cut_MD + free_MD * scale_M[:, None]
        weights_MD /= weights_MD.sum(1, keepdims=True)
    return weights_MD


def nearest(region: Region, weights_D: np.ndarray) -> np.ndarray:
    """An allowed mixture close to a given one: itself where it is allowed."""
    moved_D: np.ndarray = repair(region, weights_D[None], rounds=2000)[0]
    if is_inside(region, moved_D[None])[0]:
        return moved_D
    inside_D = _point_inside(region)
    if inside_D is None:  # make_region has refused empty regions
        raise BoundsError("no mixture meets the bounds")
    return inside_D


def allowed_region(
    domains: Sequence[str],
    bounds: Sequence[tuple[str, float, float]],
    caps: Mapping[str, float],
    held: Mapping[str, float],
    notes: list[str],
) -> Region:
    """The region of an optimum: bounds, caps, and domains held at a weight; what had to give way is noted.

    Caps that sum to less than 1 cannot be met (the plan of the target run says so with its own numbers); they are
    raised in proportion, so that finished proxies still say something.
    """
    total = sum(caps.get(domain, 1.0) for domain in domains)
    if total < 1:
        notes.append(
            f"The supply within max_epochs is {total:.1%} of the target's tokens: caps were raised in proportion. "
            "Raise domains.max_epochs or shorten the schedule."
        )
        caps = {domain: cap / total * (1 + 1e-9) for domain, cap in caps.items()}
    held_bounds = [(domain, weight, weight) for domain, weight in held.items() if len(held) < len(domains)]
    try:
        return make_region(domains, [*bounds, *held_bounds], caps)
    except BoundsError:
        if not held_bounds:
            raise
        notes.append(f"The bounds leave no room to hold {', '.join(held)} at the natural weight.")
        return make_region(domains, bounds, caps)
