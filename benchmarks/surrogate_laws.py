"""How well the chosen surrogate ranks mixtures where losses follow laws that no surrogate was made for.

    python -m benchmarks.surrogate_laws [--quick] [--json] [--seeds N]

Made laws of other shapes than ours, 3 to 60 domains, 20 to 200 runs, even and concentrated designs, noise of 0.1 to
3 %. The truth is known, so runs held out have no noise: a number is Spearman's correlation with the true loss, mean
over four measured domains, on 300 mixtures of the same design. `regret` is what the best single surrogate, picked with
the truth in hand, has more. The product chooses as an ablation does: what so many runs can carry, cross-validated
inside them. Losses that no mixture moves (law `flat`) leave one domain to be ranked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.surrogates import mean_rank_correlation
from mixing.ablation.objective import Objective
from mixing.ablation.surrogates import COMBINATION, FITS, all_rows, combined, usable
from mixing.ablation.validation import choose, num_repeats, validate

TARGETS, HELD_OUT = 4, 300
Law = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _slopes(num_domains: int, chance: np.random.Generator) -> np.ndarray:
    """What each domain does for each measured one, (T, D): much for its own, a little for some others."""
    slopes_TD = chance.gamma(0.4, 0.5, (TARGETS, num_domains))
    slopes_TD[np.arange(TARGETS), np.arange(TARGETS) % num_domains] += 2.0
    return slopes_TD


def power(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A power law in useful tokens: 1.5 + 1.5 (0.02 + useful)^-0.25."""
    slopes_TD = _slopes(weights_ND.shape[1], chance)
    return 1.5 + 1.5 * (0.02 + weights_ND @ (slopes_TD / slopes_TD.max(1, keepdims=True)).T) ** -0.25


def exponential(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """The published mixing law: 2 + exp(0.8 - t w)."""
    return 2.0 + np.exp(0.8 - weights_ND @ _slopes(weights_ND.shape[1], chance).T)


def additive(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A sum of saturating parts, one a domain: 4 - sum a w / (w + h)."""
    slopes_TD, half_D = _slopes(weights_ND.shape[1], chance), chance.uniform(0.02, 0.3, weights_ND.shape[1])
    return 4.0 - 0.6 * (weights_ND / (weights_ND + half_D)) @ slopes_TD.T / slopes_TD.sum(1)[None] * 3


def interaction(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Domains that help only together, and one that harms beyond a share: no slope per domain tells it."""
    num_domains, found = weights_ND.shape[1], []
    for _ in range(TARGETS):
        first, second, third = chance.permutation(num_domains)[:3]
        pair = np.sqrt(weights_ND[:, first] * weights_ND[:, second])
        found.append(3.5 - 2.0 * pair + 1.5 * np.maximum(0.0, weights_ND[:, third] - 0.4 / np.sqrt(num_domains)))
    return np.stack(found, axis=1)


def threshold(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A skill that comes at some share of useful tokens: a logistic step in their logarithm."""
    slopes_TD = _slopes(weights_ND.shape[1], chance)
    useful_NT = weights_ND @ (slopes_TD / slopes_TD.max(1, keepdims=True)).T
    return 2.0 + 1.0 / (1 + np.exp(4 * (np.log(useful_NT + 1e-3) - np.log(np.median(useful_NT, axis=0)))))


def error_rate(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """An accuracy's error, 1 - accuracy, that hardly leaves chance: 0.75 less a small logistic part."""
    useful_NT = np.sqrt(weights_ND) @ _slopes(weights_ND.shape[1], chance).T
    return 0.75 - 0.15 / (1 + np.exp(-3 * (useful_NT - useful_NT.mean(0)) / useful_NT.std(0).clip(1e-9)))


def copies(weights_ND: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Every second domain is a copy of the one before it: only sums of pairs count."""
    summed_ND = weights_ND[:, ::2].copy()
    summed_ND[:, : weights_ND.shape[1] // 2] += weights_ND[:, 1::2]
    return power(summed_ND, chance)


def flat(weights_ND: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Losses that no mixture moves, but for one of the four."""
    losses_NT = np.full((len(weights_ND), TARGETS), 3.0)
    losses_NT[:, 0] = 3.0 - np.sqrt(weights_ND[:, 0])
    return losses_NT


LAWS: dict[str, Law] = {
    law.__name__: law for law in (power, exponential, additive, interaction, threshold, error_rate, copies, flat)
}


@dataclass(frozen=True)
class Case:
    """A made study: its law, domains, runs, design (even or concentrated), noise as a share of the mean loss, seed."""

    law: str
    domains: int
    runs: int
    design: str
    noise: float
    seed: int


def mixtures(number: int, case: Case, chance: np.random.Generator) -> np.ndarray:
    """Mixtures of a design: Dirichlet draws of many strengths around an uneven prior, or near it alone."""
    prior_D = np.random.default_rng(case.seed).dirichlet(np.full(case.domains, 1.5))
    low, high = (0.1, 5.0) if case.design == "even" else (20.0, 60.0)
    strengths = np.exp(chance.uniform(np.log(low), np.log(high), number)) * case.domains
    return np.stack([chance.dirichlet(np.maximum(strength * prior_D, 1e-3)) for strength in strengths])


def one_case(case: Case) -> tuple[str, dict[str, float]]:
    """The surrogate that is chosen, and the correlation of every one on mixtures held out."""
    chance = np.random.default_rng((case.seed, case.domains, case.runs))
    weights_ND, held_MD = mixtures(case.runs, case, chance), mixtures(HELD_OUT, case, chance)
    truth = LAWS[case.law](np.concatenate([weights_ND, held_MD]), np.random.default_rng(case.seed + 1))
    true_NT, held_MT = truth[: case.runs], truth[case.runs :]
    losses_NT = true_NT + case.noise * true_NT.mean(0) * chance.standard_normal(true_NT.shape)
    moved = np.ptp(held_MT, axis=0) > 1e-9  # a rank of what never moves is nothing
    objective = Objective("shares", tuple("abcd"), np.full(TARGETS, 1 / TARGETS), losses_NT.mean(0))
    names, _ = usable(case.runs, case.domains)
    found = validate(names, weights_ND, losses_NT, objective, num_repeats(case.runs), case.seed)
    fits = {name: FITS[name](weights_ND, losses_NT, all_rows(losses_NT)) for name in names}
    if found.shares:
        fits[COMBINATION] = combined(fits, found.shares)
    chosen = choose(found.predictions, losses_NT, objective)
    return chosen, {
        name: mean_rank_correlation(fit(held_MD)[0][:, moved], held_MT[:, moved]) for name, fit in fits.items()
    }


def cases(seeds: int, quick: bool, laws: tuple[str, ...] = ()) -> Iterator[Case]:
    """Each law (or some) in small and large studies; designs and noises in turn, so that every size meets both."""
    sizes = ((3, 20), (7, 40), (24, 100), (60, 200))
    number = 0
    for seed in range(seeds):
        for law in LAWS:
            for place, (domains, runs) in enumerate(sizes):
                noise = (0.001, 0.01, 0.03)[number % 3]
                design = ("even", "concentrated")[(number // len(sizes) + place) % 2]
                if (not laws or law in laws) and not (quick and place > 1):
                    yield Case(law, domains, runs, design, noise, seed)
                number += 1


def measure(seeds: int, quick: bool, laws: tuple[str, ...] = ()) -> dict[str, object]:
    """All numbers: each case, and means by law."""
    rows = []
    for case in cases(seeds, quick, laws):
        started = time.process_time()
        chosen, found = one_case(case)
        single = {name: value for name, value in found.items() if name != COMBINATION}
        best = max(single, key=lambda name: single[name])
        row = {**vars(case), "chosen": chosen, "correlation": round(found[chosen], 4), "best": best}
        row |= {"best_correlation": round(single[best], 4), "regret": round(single[best] - found[chosen], 4)}
        row |= {name: round(found[name], 4) for name in ("linear", "lightgbm", "ridge_sqrt") if name in found}
        rows.append(row | {"cpu_s": round(time.process_time() - started, 1)})
        print(json.dumps(rows[-1]), flush=True, file=sys.stderr)
    return {"cases": rows, "mean_regret": round(float(np.mean([row["regret"] for row in rows])), 4)}


def main() -> None:
    """Print every case as it comes, and the mean regret."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only 3 and 7 domains")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--laws", nargs="*", choices=tuple(LAWS), default=())
    arguments = parser.parse_args()
    measured = measure(arguments.seeds, arguments.quick, tuple(arguments.laws))
    print(json.dumps(measured) if arguments.json else f"mean regret {measured['mean_regret']}")


if __name__ == "__main__":
    main()
