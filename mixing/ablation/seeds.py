"""What one seed for all drawn mixtures hides: the seed's own liking for a mixture.

A swarm draws many mixtures on one seed. What start values and order do to every mixture alike cancels, and what they
do to a single run is scatter that bootstraps show. What is left is smooth: a seed may favour one domain, and then every
run with much of that domain looks better. No bootstrap of runs on that seed can show it; repeats at natural weights
tell how large it is. It is taken as sum_j t_j sqrt(w_j) with independent t_j of the standard deviation s of
repeats, so that two mixtures differ by a variance of 2 s^2 (1 - overlap), overlap = sum_j sqrt(w_j w'_j): nothing
between equal mixtures, twice the noise of a run between mixtures without a common domain. Shapes: N runs, M mixtures,
D domains, R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixing.ablation.runs import RunsTable
from mixing.ablation.sampling import generator


@dataclass(frozen=True)
class SeedEffect:
    """How much of a difference between mixtures may be the seeds'.

    Attributes:
        sd: standard deviation of the objective over seeds at one mixture.
        degrees: its degrees of freedom.
        shared: sum of squared shares of the runs by seed: 1 for one seed, 1/k for k seeds alike.
        known: whether repeats measured `sd`; else the error on held-out runs stands in.
    """

    sd: float
    degrees: int
    shared: float
    known: bool

    def variance(self, mixtures_MD: np.ndarray, other_D: np.ndarray) -> np.ndarray:
        """Variance (M,) that seeds give to the difference between mixtures and another one (D,)."""
        overlap_M = np.sqrt(np.maximum(mixtures_MD * other_D, 0.0)).sum(-1)
        variance_M: np.ndarray = 2 * self.sd**2 * self.shared * np.maximum(0.0, 1 - overlap_M)
        return variance_M

    def drawn(self, mixtures_MD: np.ndarray, replicates: int, seed: int) -> np.ndarray:
        """What other seeds might have added to the objective of mixtures, (R, M)."""
        chance = generator(seed, "seeds")
        taste_RD = chance.standard_normal((replicates, mixtures_MD.shape[1])) * self.sd * np.sqrt(self.shared)
        effects_RM: np.ndarray = taste_RD @ np.sqrt(np.maximum(mixtures_MD, 0.0)).T
        return effects_RM


def seed_effect(
    table: RunsTable, at_natural_N: np.ndarray, sd: float | None, degrees: int, held_out_error: float | None
) -> SeedEffect:
    """The effect of the seeds that a table's mixtures were trained on.

    Args:
        table: the runs that count.
        at_natural_N: which of them are at natural weights; the others tell one mixture from another.
        sd: standard deviation of the objective over seeds, None without repeats.
        degrees: its degrees of freedom.
        held_out_error: root mean square of the objective on held-out runs, which stands in without repeats: it holds
            the noise of a run and what the surrogate gets wrong.
    """
    seeds = np.array(table.seeds)[~at_natural_N]
    _, counts = np.unique(seeds, return_counts=True)
    shared = float(np.square(counts / counts.sum()).sum()) if len(counts) else 1.0
    if sd is None:
        return SeedEffect(held_out_error or 0.0, max(1, table.num_runs - 1), shared, known=False)
    return SeedEffect(sd, degrees, shared, known=True)
