"""Which runs of a table a surrogate is fitted to, and what about them the reader must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixing.ablation.runs import RunsTable

EARLIER = "earlier"  # runs of another swarm, in terms of this one's domains (`lineage`)
NOT_FITTED = ("order",)  # another order of the same weights is no evidence on weights
LEAST_MOVE = 0.005  # share of tokens below which two mixtures count as the same


class TableError(ValueError):
    """A table of runs that no weights can be concluded from."""


def of_kinds(table: RunsTable, kinds: Sequence[str]) -> np.ndarray:
    """Mask of the runs of some kinds."""
    return np.array([kind in kinds for kind in table.kinds], dtype=bool)


def moved(weights_ND: np.ndarray, natural_D: np.ndarray) -> np.ndarray:
    """The share of tokens that each mixture gives to other domains than natural weights do."""
    apart_N: np.ndarray = 0.5 * np.abs(weights_ND - natural_D).sum(1)
    return apart_N


def aligned(table: RunsTable, natural: Mapping[str, float]) -> RunsTable:
    """The table with the domains of the natural weights as its columns, in their order by name.

    Raises:
        TableError: if a run gives weight to a domain without a natural weight.
    """
    names = tuple(sorted(natural))
    used = table.weights.sum(0) > 0
    unknown = [d for d, some in zip(table.domains, used, strict=True) if some and d not in natural]
    if unknown:
        raise TableError(
            f"runs give weight to {', '.join(unknown)}, which has no natural weight; domains: {', '.join(names)}"
        )
    columns = {name: table.weights[:, place] for place, name in enumerate(table.domains)}
    empty_N = np.zeros(table.num_runs)
    weights_ND = np.stack([columns.get(name, empty_N) for name in names], axis=1)
    return replace(table, domains=names, weights=weights_ND)


def fitted_runs(table: RunsTable) -> tuple[RunsTable, list[str]]:
    """The runs that count for surrogates, and what was left out, in words.

    Left out: diverged runs, other orders, runs without a loss, exact copies; and measured domains without a loss in
    more than half of the study's own runs. Runs of earlier swarms may lack losses of domains that were not there.

    Raises:
        TableError: if nothing is left.
    """
    notes: list[str] = []
    table = table.rows(~of_kinds(table, NOT_FITTED))
    table = _without(table, table.diverged, "diverged and were left out", notes)
    earlier_N = of_kinds(table, (EARLIER,))
    own_NT = np.isfinite(table.losses[~earlier_N] if not earlier_N.all() else table.losses)
    measured_T = own_NT.mean(0) >= 0.5 if table.num_runs else np.zeros(len(table.targets), bool)
    unmeasured = [name for name, kept in zip(table.targets, measured_T, strict=True) if not kept]
    if unmeasured:
        notes.append(f"No held-out loss of {', '.join(unmeasured)} in most runs: left out of the objective.")
        table = some_targets(table, measured_T)
    missing_N = ~np.isfinite(table.losses).any(1)
    table = _without(table, missing_N, "have no held-out loss and were left out", notes)
    partly_N = ~np.isfinite(table.losses).all(1) & ~of_kinds(table, (EARLIER,))
    if partly_N.any():
        notes.append(
            f"{int(partly_N.sum())} of {table.num_runs} runs lack the loss of some domain and count for the others: "
            f"{_listed([table.names[i] for i in np.flatnonzero(partly_N)])}."
        )
    table = _without(table, _copies(table), "are exact copies of others (weights, seed, losses) and count once", notes)
    if table.num_runs < 2 or not table.targets:
        raise TableError(
            f"{table.num_runs} runs with {len(table.targets)} measured domains are left; weights need at least two "
            "runs and a domain with held-out text. " + " ".join(notes)
        )
    return table, notes


def some_targets(table: RunsTable, kept_T: np.ndarray) -> RunsTable:
    """The table with some of its measured domains."""
    targets = tuple(name for name, kept in zip(table.targets, kept_T, strict=True) if kept)
    return replace(table, targets=targets, losses=table.losses[:, kept_T], bits=table.bits[:, kept_T])


def _without(table: RunsTable, left_out_N: np.ndarray, why: str, notes: list[str]) -> RunsTable:
    if not left_out_N.any():
        return table
    names = [table.names[i] for i in np.flatnonzero(left_out_N)]
    notes.append(f"{len(names)} of {table.num_runs} runs {why}: {_listed(names)}.")
    return table.rows(~left_out_N)


def _listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _copies(table: RunsTable) -> np.ndarray:
    """Runs that repeat an earlier row in weights, seed and losses: no new evidence."""
    seen: set[tuple[bytes, int, bytes]] = set()
    copies = []
    for weights_D, seed, losses_T in zip(table.weights, table.seeds, table.losses, strict=True):
        key = (np.round(weights_D, 9).tobytes(), seed, losses_T.tobytes())
        copies.append(key in seen)
        seen.add(key)
    return np.array(copies, dtype=bool)


def num_mixtures(table: RunsTable) -> int:
    """Different mixtures: what a surrogate learns from; seeds of one mixture only measure noise."""
    return len(np.unique(np.round(table.weights, 6), axis=0))


def unmoved_domains(table: RunsTable) -> list[str]:
    """Domains whose weight no run ever changed: nothing can be concluded on them."""
    moved_D = np.ptp(table.weights, axis=0) > 1e-6
    return [name for name, moved in zip(table.domains, moved_D, strict=True) if not moved]


def coupled_domains(table: RunsTable, unmoved: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of domains whose weights always moved together: the runs cannot tell one from the other."""
    moved = [place for place, name in enumerate(table.domains) if name not in unmoved]
    if len(moved) < 3 or table.num_runs < 3:
        return []
    correlation = np.corrcoef(table.weights[:, moved], rowvar=False)
    first, second = np.nonzero(np.triu(np.abs(correlation) > 0.9999, 1))
    return [(table.domains[moved[i]], table.domains[moved[j]]) for i, j in zip(first, second, strict=True)]
