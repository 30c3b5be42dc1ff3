"""The front of an objective of two domains: what one gains and the other pays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixing.ablation.objective import relative_change
from recipes.report.axes import colour
from recipes.report.curves import Curve, curves_over
from recipes.report.markup import Column, Figure, Table
from recipes.report.record import Record


def front_figure(record: Record, found: Mapping[str, Any]) -> Figure:
    """The first two axes of a front against each other, natural weights and the chosen point beside it."""
    front = found["front"]
    names = sorted(front[0]["axes"])
    across, up = names[:2]
    points = sorted((_percent(one, across), _percent(one, up)) for one in front)
    chosen = min(front, key=lambda one: sum(one["axes"].values()))
    curves = [
        Curve("front", tuple(points), colour(0), dots=True),
        Curve("natural weights", ((0.0, 0.0),), "kx", dots=True),
        Curve("least sum", ((_percent(chosen, across), _percent(chosen, up)),), colour(1), dots=True),
    ]
    domains = sorted(found["natural"])
    columns = [Column(f"log ratio {name}", "log_change") for name in names]
    columns += [Column(f"w:{name}", "share") for name in domains]
    rows = tuple(
        (*(one["axes"][name] for name in names), *(one["weights"].get(name) for name in domains))
        for one in sorted(front, key=lambda one: one["axes"][across])
    )
    more = "" if len(names) == 2 else f" Of its {len(names)} domains two are drawn; the table has all."
    return Figure(
        "front",
        f"What {across} gains and {up} pays",
        "Mixtures of which none is better for all domains of the objective, as the surrogate foretells them: change of "
        "each loss against natural weights in per cent, less is better. Orange has the least sum, which is what the "
        f"ablation proposes. Nothing here is confirmed.{more}",
        curves_over(curves, "The front", (f"{across} (% of its loss)", f"{up} (%)"), height=300.0),
        record.command("ablate", "--set ablation.objective=…"),
        Table("front", tuple(columns), rows, head=12),
    )


def _percent(mixture: Mapping[str, Any], domain: str) -> float:
    return 100 * relative_change(mixture["axes"][domain])
