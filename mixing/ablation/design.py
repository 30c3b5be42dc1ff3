"""Which proxy runs an ablation trains: the design, as named mixtures with seeds.

    natural.s0 …            natural weights, paired seeds: the noise of everything else
    one.DOMAIN              a domain alone: MindLLM's protocol (arXiv:2310.15777), the cross-domain loss matrix
    without.DOMAIN          natural weights less one domain
    dirichlet.007           drawn around natural weights, inside the bounds (RegMix, Olmix)
    spread.003, d_opt.003   picked from a pool: evenly spread, or where a law in sqrt(w) learns most
    baseline.NAME.s0        weights to be compared with, on the seeds of natural
    order.NAME.s0           natural weights in another order, same sequences

A run's name and weights follow from its kind, its index and the names of the domains: more runs of a kind, or runs of
another kind, leave it as it is, so that a larger study reuses a smaller one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixing.ablation.region import Region, make_region
from mixing.ablation.sampling import d_optimal, dirichlet_draws, pool_of, rounded, space_filling

POOL = 2000
Order = tuple[str, tuple[str, ...], str]
UNIFORM: Order = ("uniform", (), "asc")


class DesignError(ValueError):
    """A design that cannot be made of what is given."""


@dataclass(frozen=True)
class PlannedRun:
    """One proxy run: its name, its mixture (domain -> share of tokens, sum 1), its seed and order."""

    name: str
    kind: str
    weights: dict[str, float]
    seed: int
    order: Order = UNIFORM


@dataclass(frozen=True)
class DesignOptions:
    """How many runs of each kind.

    Attributes:
        one_domain: seeds of a run on each domain alone.
        dirichlet, space_filling, d_optimal: mixtures of each kind, on the first seed.
        leave_one_out: seeds of a run without each domain.
        sequential: mixtures that wait for results; `sequential.next_runs` places them, `design` makes none.
        repeats: seeds at natural weights, of baselines and of orders.
        bounds: (pattern, least, most) of summed weights; runs of one domain and without one ignore them.
        baselines: (name, weights).
        orders: (kind, patterns, direction) beside uniform.
        seed: of the study; run s of a group of seeds has seed + s.
        caps: (domain, most weight) that the target run's supply allows.
        known: mixtures of earlier runs (domain -> weight): space-filling and D-optimal runs go where they are not.
    """

    one_domain: int = 1
    dirichlet: int = 0
    leave_one_out: int = 0
    space_filling: int = 0
    d_optimal: int = 0
    sequential: int = 0
    repeats: int = 3
    bounds: tuple[tuple[str, float, float], ...] = ()
    baselines: tuple[tuple[str, dict[str, float]], ...] = ()
    orders: tuple[Order, ...] = ()
    seed: int = 0
    caps: tuple[tuple[str, float], ...] = ()
    known: tuple[dict[str, float], ...] = ()


def design(domains: Sequence[str], natural: Mapping[str, float], options: DesignOptions) -> list[PlannedRun]:
    """All runs that can be planned before any is trained.

    Args:
        domains: the trained domains.
        natural: natural weight of each, positive, sum 1.
        options: how many of each kind.

    Raises:
        DesignError: for no domains, or a natural weight that is not positive.
        BoundsError: for bounds that no mixture meets.
    """
    _check(domains, natural)
    names = tuple(sorted(domains))
    natural_D = np.array([natural[name] for name in names])
    natural_D = natural_D / natural_D.sum()
    region = make_region(names, options.bounds, dict(options.caps))
    runs = [
        *_natural_runs(names, natural_D, options),
        *_one_domain_runs(names, options),
        *_leave_one_out_runs(names, natural_D, options),
        *_mixtures(region, natural_D, options),
        *_baseline_runs(names, options),
        *_order_runs(names, natural_D, options),
    ]
    return [run for run in runs if sum(run.weights.values()) > 0]


def _check(domains: Sequence[str], natural: Mapping[str, float]) -> None:
    if not domains:
        raise DesignError("an ablation needs at least one trained domain, there is none")
    if len(set(domains)) != len(domains):
        raise DesignError(f"a domain is named twice in {', '.join(domains)}")
    bad = [f"{name}: {natural.get(name)}" for name in domains if not natural.get(name, 0.0) > 0]
    if bad:
        raise DesignError(f"natural weights must be positive; {'; '.join(bad)}; leave domains without tokens out")


def _mixture(names: Sequence[str], weights_D: np.ndarray) -> dict[str, float]:
    return {name: float(weight) for name, weight in zip(names, weights_D, strict=True)}


def _natural_runs(names: Sequence[str], natural_D: np.ndarray, options: DesignOptions) -> Iterator[PlannedRun]:
    for number in range(max(1, options.repeats)):
        yield PlannedRun(f"natural.s{number}", "natural", _mixture(names, natural_D), options.seed + number)


def _seed_suffix(number: int) -> str:
    """The first seed goes without saying."""
    return f".s{number}" if number else ""


def _one_domain_runs(names: Sequence[str], options: DesignOptions) -> Iterator[PlannedRun]:
    if len(names) == 1:
        return  # natural already is the one domain
    for number in range(options.one_domain):
        for name in names:
            weights = {other: float(other == name) for other in names}
            yield PlannedRun(f"one.{name}{_seed_suffix(number)}", "one_domain", weights, options.seed + number)


def _leave_one_out_runs(names: Sequence[str], natural_D: np.ndarray, options: DesignOptions) -> Iterator[PlannedRun]:
    if len(names) == 1:
        return
    for number in range(options.leave_one_out):
        for place, name in enumerate(names):
            left_D = natural_D.copy()
            left_D[place] = 0.0
            weights = _mixture(names, rounded(left_D))
            yield PlannedRun(f"without.{name}{_seed_suffix(number)}", "leave_one_out", weights, options.seed + number)


def _mixtures(region: Region, natural_D: np.ndarray, options: DesignOptions) -> Iterator[PlannedRun]:
    """The swarm: every kind from draws of its own, so that no kind moves another."""
    if len(region.domains) == 1:
        return
    names = region.domains
    key = (options.seed, *names)
    drawn_MD = dirichlet_draws(region, natural_D, options.dirichlet, (*key, "dirichlet"))
    yield from _numbered("dirichlet", "dirichlet", names, drawn_MD, options.seed)
    known_MD = np.array([[one.get(name, 0.0) for name in names] for one in options.known]).reshape(-1, len(names))
    corners_MD = np.vstack([natural_D[None], np.eye(len(names)), known_MD])
    for prefix, kind, number, pick in (
        ("spread", "space_filling", options.space_filling, space_filling),
        ("d_opt", "d_optimal", options.d_optimal, d_optimal),
    ):
        if number:
            pool_MD = pool_of(region, natural_D, POOL, (*key, kind))
            picked_MD = pick(corners_MD, pool_MD, number)
            yield from _numbered(prefix, kind, names, picked_MD, options.seed)


def _numbered(prefix: str, kind: str, names: Sequence[str], weights_MD: np.ndarray, seed: int) -> Iterator[PlannedRun]:
    for index, weights_D in enumerate(weights_MD):
        yield PlannedRun(f"{prefix}.{index:03}", kind, _mixture(names, rounded(weights_D)), seed)


def _baseline_runs(names: Sequence[str], options: DesignOptions) -> Iterator[PlannedRun]:
    for label, weights in options.baselines:
        unknown = sorted(set(weights) - set(names))
        if unknown:
            raise DesignError(f"baseline {label!r} gives weight to {', '.join(unknown)}, which is not trained")
        weights_D = np.array([float(weights.get(name, 0.0)) for name in names])
        for number in range(max(1, options.repeats)):
            mixture = _mixture(names, weights_D / weights_D.sum())
            yield PlannedRun(f"baseline.{_word(label)}.s{number}", "baseline", mixture, options.seed + number)


def _order_runs(names: Sequence[str], natural_D: np.ndarray, options: DesignOptions) -> Iterator[PlannedRun]:
    for order in options.orders:
        for number in range(max(1, options.repeats)):
            for one in order_runs(_mixture(names, natural_D), [order], number):
                yield replace(one, seed=options.seed + number)


def order_runs(natural: Mapping[str, float], orders: Sequence[Order], number: int) -> list[PlannedRun]:
    """Natural weights in other orders than uniform, the `number`-th seed of each."""
    runs = []
    for kind, patterns, direction in orders:
        if kind == "uniform":
            continue  # that is natural itself
        label = "_".join([kind, *patterns, *([direction] if kind == "by" else [])])
        name = f"order.{_word(label)}.s{number}"
        runs.append(PlannedRun(name, "order", dict(natural), number, (kind, tuple(patterns), direction)))
    return runs


def _word(label: str) -> str:
    """A label as part of a run's name, which becomes part of a file's."""
    return re.sub(r"[^A-Za-z0-9_^-]+", "-", label.replace("*", "all"))


def optimum_runs(weights: Mapping[str, float], repeats: int, seed: int, name: str = "optimum") -> list[PlannedRun]:
    """Repeats at chosen weights, on the seeds of natural, so that the two are compared seed by seed."""
    return [
        PlannedRun(f"{name}.s{number}", "optimum", dict(weights), seed + number) for number in range(max(1, repeats))
    ]
