"""What the runs show without any surrogate: who teaches whom, how noisy a run is, what is left to learn.

Plain dictionaries, for the report. Shapes: N runs, D trained domains, T measured domains.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixing.ablation.objective import Objective
from mixing.ablation.preparation import EARLIER, NOT_FITTED, of_kinds
from mixing.ablation.runs import RunsTable

CURVES_OF = ("natural", "one_domain", "baseline", "order", "optimum")


def cross_domain_matrix(table: RunsTable, bits: bool = False) -> dict[str, dict[str, float | None]]:
    """Held-out loss (nats a token; bits a byte if asked) of the proxy of each domain alone, mean over its seeds.

    Runs of earlier swarms are not among them: what is one domain now may have been a part of it then.

    Returns:
        {trained on: {measured on: loss}}; empty without runs of one domain.
    """
    values_NT = table.bits if bits else table.losses
    counts_N = ~table.diverged & ~of_kinds(table, (*NOT_FITTED, EARLIER))
    matrix = {}
    for place, domain in enumerate(table.domains):
        alone_N = (table.weights[:, place] > 1 - 1e-9) & counts_N
        if alone_N.any():
            matrix[domain] = {name: mean(values_NT[alone_N, t]) for t, name in enumerate(table.targets)}
    return matrix


def mean(values: np.ndarray) -> float | None:
    """Mean of what was measured, None where nothing was."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def groups_of(table: RunsTable) -> list[np.ndarray]:
    """Row numbers of the study's runs that share mixture and order over several seeds."""
    kinds = np.array([kind if kind == "order" else "" for kind in table.kinds])
    labels = [name.rsplit(".s", 1)[0] if kind else "" for name, kind in zip(table.names, kinds, strict=True)]
    keys: dict[tuple[str, bytes], list[int]] = {}
    for row in range(table.num_runs):
        if not table.diverged[row] and table.kinds[row] != EARLIER:
            keys.setdefault((labels[row], np.round(table.weights[row], 6).tobytes()), []).append(row)
    return [np.array(rows) for rows in keys.values() if len({table.seeds[row] for row in rows}) > 1]


def at_corner(table: RunsTable) -> np.ndarray:
    """Mask of the runs of one domain alone, where there are others."""
    corner_N: np.ndarray = (table.weights.max(1) >= 0.99) & (len(table.domains) > 1)
    return corner_N


def seed_noise(table: RunsTable, objective: Objective | None = None) -> dict[str, Any]:
    """Standard deviation over seeds of one mixture, pooled over mixtures; those of a domain alone are left out.

    Noise at a corner is many times that of a mixture (25 times in one study), so corners would hide it.

    Returns:
        {"losses": {domain: nats}, "objective": SD or None, "degrees": seeds less mixtures, of the objective where it is
        asked for}; no losses without repeats.
    """
    corner_N = at_corner(table)
    groups = [rows for rows in groups_of(table) if not corner_N[rows[0]]]
    losses = {name: _pooled([table.losses[rows, t] for rows in groups])[0] for t, name in enumerate(table.targets)}
    if not groups or objective is None:
        return {"losses": losses if groups else {}, "objective": None, "degrees": sum(len(rows) - 1 for rows in groups)}
    values_N = objective.of(table.losses)
    value, degrees = _pooled([values_N[rows] for rows in groups])
    return {"losses": losses, "objective": value, "degrees": degrees}


def _pooled(groups: list[np.ndarray]) -> tuple[float | None, int]:
    """Standard deviation inside groups over what was measured, and its degrees of freedom."""
    known = [values[np.isfinite(values)] for values in groups]
    squares = sum(float(np.square(values - values.mean()).sum()) for values in known if len(values) > 1)
    degrees = sum(len(values) - 1 for values in known if len(values) > 1)
    return (math.sqrt(squares / degrees), degrees) if degrees else (None, 0)


def learnability(table: RunsTable, reference: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """How much each domain still has to give: its loss at natural weights, trained on alone, and over a run.

    Returns:
        {domain: {natural, alone, gap, falling}}: losses in nats; gap is what training on it alone saves against
        natural weights, falling is how much its loss fell over the last half of a natural run, both as shares.
    """
    matrix = cross_domain_matrix(table)
    shown = {}
    for name in table.targets:
        natural, alone = reference.get(name), matrix.get(name, {}).get(name)
        gap = (natural - alone) / natural if natural and alone is not None else None
        shown[name] = {"natural": natural, "alone": alone, "gap": gap, "falling": _falling(table, name)}
    return shown


def _falling(table: RunsTable, name: str) -> float | None:
    """Share of its loss that a domain lost over the second half of the first natural run."""
    for kind, curve in zip(table.kinds, table.curves, strict=False):
        losses = [loss for loss in curve.get("losses", {}).get(name, []) if loss is not None]
        if kind == "natural" and len(losses) > 2:
            return float(losses[len(losses) // 2] / losses[-1] - 1)
    return None


def loss_curves(table: RunsTable) -> dict[str, dict[str, Any]]:
    """Held-out losses over tokens of the runs that a reader looks at one by one."""
    return {
        name: curve
        for name, kind, curve in zip(table.names, table.kinds, table.curves, strict=False)
        if kind in CURVES_OF and curve.get("tokens")
    }


def arms(table: RunsTable, objective: Objective) -> list[dict[str, Any]]:
    """Baselines and orders against natural weights: the objective's differences, paired by seed.

    Returns:
        Per arm: name, kind, seeds, objective (mean), pairs (seeds that natural weights have too), difference (mean of
        pairs), error (standard error of that, None for one pair) and weights.
    """
    values_N = objective.of(table.losses)
    good_N = np.isfinite(values_N) & ~table.diverged
    natural = {table.seeds[i]: values_N[i] for i in range(table.num_runs) if table.kinds[i] == "natural" and good_N[i]}
    rows_of: dict[str, list[int]] = {}
    for i in range(table.num_runs):
        if table.kinds[i] in ("natural", "baseline", "order", "optimum", "leave_one_out") and good_N[i]:
            stem, mark, seed = table.names[i].rpartition(".s")
            rows_of.setdefault(stem if mark and seed.isdigit() else table.names[i], []).append(i)
    shown = []
    for name, rows in rows_of.items():
        pairs = np.array([values_N[i] - natural[table.seeds[i]] for i in rows if table.seeds[i] in natural])
        shown.append(
            {
                "name": name,
                "kind": table.kinds[rows[0]],
                "seeds": [table.seeds[i] for i in rows],
                "objective": float(values_N[rows].mean()),
                "pairs": len(pairs),
                "difference": float(pairs.mean()) if len(pairs) else None,
                "error": float(pairs.std(ddof=1) / math.sqrt(len(pairs))) if len(pairs) > 1 else None,
                "weights": weights_of(table.domains, table.weights[rows[0]]),
            }
        )
    return shown


def weights_of(domains: tuple[str, ...], weights_D: np.ndarray) -> dict[str, float]:
    """A mixture by name."""
    return {name: float(weight) for name, weight in zip(domains, weights_D, strict=True)}
