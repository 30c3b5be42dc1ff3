"""The cross-domain loss matrix: who teaches whom, and which domains teach alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixing.ablation.objective import relative_change
from recipes.report.axes import legend
from recipes.report.grids import Cell, heat_map
from recipes.report.markup import Column, Figure, Table
from recipes.report.record import Record

MOST_DOMAINS = 32  # drawn; the table has all
_TREE = (
    " The tree at the right joins domains that stand in for each other: where two branches meet, a proxy of the one "
    "has that much more loss on the other's text than the other's own proxy, mean of both ways. Columns of text "
    "that nothing was trained on stand behind the domain that teaches it best."
)


def matrix_figure(record: Record, found: Mapping[str, Any]) -> Figure:
    """Loss by domain trained on and evaluated on, like domains beside each other, with the tree that says how like."""
    matrix, bits = found["matrix"], found.get("matrix_bits_per_byte") or {}
    natural = found.get("natural_losses") or {}
    clusters = found.get("clusters") or {}
    trained = clusters.get("order") or sorted(matrix)
    measured = clusters.get("measured") or sorted({name for row in matrix.values() for name in row})
    change = {
        (a, b): loss - natural[b]
        for a, row in matrix.items()
        for b, loss in row.items()
        if loss is not None and natural.get(b) is not None
    }
    ends = (-min(0.0, *change.values()) or 1.0, max(0.0, *change.values()) or 1.0) if change else (1.0, 1.0)
    cells = [
        [
            _matrix_cell(a, b, matrix[a].get(b), change.get((a, b)), ends, (bits.get(a) or {}).get(b))
            for b in measured[:MOST_DOMAINS]
        ]
        for a in trained[:MOST_DOMAINS]
    ]
    merges = clusters.get("merges", []) if len(trained) <= MOST_DOMAINS else []
    branches = [(left, right, relative_change(distance)) for left, right, distance in merges]
    columns = (
        Column("trained on"), Column("evaluated on"), Column("loss (nats per token)", "loss"),
        Column("difference to natural weights (nats)", "loss"), Column("bits per byte", "loss"),
    )  # fmt: skip
    rows = tuple(
        (a, b, matrix[a].get(b), change.get((a, b)), (bits.get(a) or {}).get(b)) for a in trained for b in measured
    )
    return Figure(
        "matrix",
        "What training on one domain does to the others",
        "The number is the held-out loss (nats per token) on the column's domain of a proxy trained on the row's "
        "domain alone. Colour compares it with a proxy trained at natural weights: blue is better, red worse, "
        "each on a scale of its own. "
        "Read down a column to see which text helps a domain; losses of different columns are not comparable."
        + (_TREE if branches else ""),
        legend([("better than natural weights", "cool"), ("worse", "warm")])
        + heat_map(
            trained[:MOST_DOMAINS],
            measured[:MOST_DOMAINS],
            cells,
            "Loss by domain trained on and evaluated on",
            ("trained on", "evaluated on"),
            branches,
        ),
        record.command("ablate"),
        Table("cross_domain_losses", columns, rows),
    )


def _matrix_cell(
    a: str, b: str, loss: float | None, change: float | None, ends: tuple[float, float], bits: float | None
) -> Cell:
    if loss is None:
        return Cell("", 0.0, f"trained on {a}, evaluated on {b}: not measured")
    against = "" if change is None else f", {change:+.3f} nats against natural weights"
    in_bits = "" if bits is None else f", {bits:.3f} bits per byte"
    strength = (change or 0.0) / ends[(change or 0.0) > 0]
    return Cell(f"{loss:.2f}", strength, f"trained on {a}, evaluated on {b}: {loss:.3f} nats{against}{in_bits}")
