"""Which domains teach alike: a tree over the cross-domain loss matrix.

Two domains are as far apart as a proxy of one is worse on the other than a proxy of the other is itself, in the
logarithm of the loss, mean of both ways: 0.1 is 10.5 per cent more loss. Average linkage joins the closest; branches
are turned so that neighbours in the order are as close as the tree allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Matrix = Mapping[str, Mapping[str, float | None]]


def clustered(matrix: Matrix) -> dict[str, Any]:
    """The tree of a cross-domain loss matrix.

    Args:
        matrix: {trained on: {measured on: loss}}, nats.

    Returns:
        order: trained domains, like beside like; measured: measured domains, those that are never trained on where the
        proxy that does best on them stands; merges: [left, right, distance] from the closest pair up, by place in
        `order` or, from len(order) on, by earlier merge. {} where fewer than three domains have losses on each other.
    """
    names = [name for name in sorted(matrix) if _known(matrix, name, name) is not None]
    distances_DD = np.array([[_distance(matrix, a, b) for b in names] for a in names])
    if len(names) < 3 or not np.isfinite(distances_DD).all():
        return {}
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    condensed = squareform(distances_DD, checks=False)
    tree = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    leaves = [int(leaf) for leaf in leaves_list(tree)]
    place = {leaf: at for at, leaf in enumerate(leaves)} | {k: k for k in range(len(names), 2 * len(names))}
    order = [names[leaf] for leaf in leaves]
    return {
        "order": order,
        "measured": _columns(matrix, order),
        "merges": [[place[int(left)], place[int(right)], float(height)] for left, right, height, _ in tree],
    }


def _known(matrix: Matrix, trained: str, measured: str) -> float | None:
    loss = matrix[trained].get(measured)
    return loss if loss is not None and np.isfinite(loss) and loss > 0 else None


def _distance(matrix: Matrix, a: str, b: str) -> float:
    """Excess of each on the other, mean of both ways and never below 0; NaN where a loss is unknown."""
    losses = [_known(matrix, *pair) for pair in ((a, b), (b, b), (b, a), (a, a))]
    if any(loss is None for loss in losses):
        return float("nan")
    one, own_b, other, own_a = np.log(np.array(losses, dtype=np.float64))
    return max(0.0, float((one - own_b + other - own_a) / 2))


def _columns(matrix: Matrix, order: list[str]) -> list[str]:
    """Trained domains in their order, each followed by those that its proxy does best on and nothing trains on."""
    measured = {name for row in matrix.values() for name in row} - set(order)
    best = {}
    for name in sorted(measured):
        known = {row: loss for row in order if (loss := _known(matrix, row, name)) is not None}
        best[name] = min(known, key=lambda row: known[row]) if known else order[-1]
    return [column for row in order for column in (row, *(name for name in best if best[name] == row))]
