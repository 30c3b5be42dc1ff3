"""The scaling study: loss over operations with the laws, the target as a star, how to spend a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recipes.report.axes import colour, legend
from recipes.report.curves import Curve, curves_over
from recipes.report.markup import Column, Figure, Section, Table
from recipes.report.record import Record


def scaling_section(record: Record) -> Section | None:
    """What the ladder of sizes says; None for a recipe without one."""
    found = record.scaling
    if found is None:
        return None
    section = Section("scaling", "Scaling laws", f"{len(found['runs'])} runs, each trained to its own end.")
    section.listed(list(found["notes"]))
    section.figure(_losses(record, found))
    words = (
        "95 % intervals from bootstraps of the runs. Read E and the exponents; A and B go up and down together and say "
        "little alone. Starts: share that ended at the best objective."
    )
    section.table("Laws", _laws(found), words)
    if found["optimal"]:
        section.table("Spending a budget", _budgets(found), "Chinchilla's law at 6 operations a parameter and token.")
    return section


def _losses(record: Record, found: Mapping[str, Any]) -> Figure:
    curves = []
    sure = _surest(found)
    for place, (name, law) in enumerate(found["laws"].items()):
        if law["curve"]:
            line = tuple((math.log10(point["flops"]), point["loss"]) for point in law["curve"])
            ends = [
                tuple((math.log10(p["flops"]), p[end]) for p in law["curve"] if p[end] is not None)
                for end in ("low", "high")
            ]
            curves += [Curve("95 % interval", end, colour(place), thin=True) for end in ends if end and name == sure]
            curves.append(Curve(name, line, colour(place)))
    # Runs of one size, in order of operations.
    for size in sorted({run["parameters"] for run in found["runs"]}):
        own = sorted((math.log10(r["flops"]), r["loss"]) for r in found["runs"] if r["parameters"] == size)
        curves.append(Curve(f"{size:,.0f} parameters", tuple(own), "kx", dots=True))
    best = found["laws"].get(found["best"] or "")
    if found["target"] and best and best["target"]:
        star = ((math.log10(found["target"]["flops"]), best["target"]["loss"]),)
        curves.append(Curve("★ the recipe's model", star, colour(3), dots=True))
    columns = (
        Column("run"), Column("parameters", "count"), Column("tokens", "count"), Column("operations", "number"),
        Column("loss (nats)", "loss"), Column("by the best law", "loss"),
    )  # fmt: skip
    rows = tuple(
        (r["name"], r["parameters"], r["tokens"], r["flops"], r["loss"], r["predicted"]) for r in found["runs"]
    )
    return Figure(
        "scaling",
        "Loss over operations",
        "Grey: the runs, a line for each size. Coloured: laws fitted to the least loss at each number of operations, "
        "one with its 95 % interval. The star: the recipe's own model by the law that foretold the largest size best.",
        legend([(name, colour(place)) for place, (name, law) in enumerate(found["laws"].items()) if law["curve"]])
        + curves_over(curves, "Held-out loss over operations", ("operations (log10 of FLOPs)", "nats per token")),
        record.command("scale"),
        Table("scaling", columns, rows),
    )


def _surest(found: Mapping[str, Any]) -> str | None:
    """The drawn law that foretold the largest size best."""
    errors = {
        name: abs(law["held_out"]["error"]) for name, law in found["laws"].items() if law["curve"] and law["held_out"]
    }
    return min(errors, key=lambda name: errors[name]) if errors else None


def _laws(found: Mapping[str, Any]) -> Table:
    columns = (
        Column("law"), Column("parameter"), Column("value", "loss"), Column("from", "loss"), Column("to", "loss"),
        Column("starts", "share"), Column("error at the largest size", "change"),
    )  # fmt: skip
    rows = []
    for name, law in found["laws"].items():
        held = law["held_out"]
        for parameter in [one for one in law["parameters"] if not one.startswith("log_") and one not in ("A", "B")]:
            low, high = law["intervals"].get(parameter, (None, None))
            agreeing = law["restarts"]["agreeing"]
            error = None if held is None else held["error"]
            rows.append((name, parameter, law["parameters"][parameter], low, high, agreeing, error))
    return Table("scaling_laws", columns, tuple(rows))


def _budgets(found: Mapping[str, Any]) -> Table:
    columns = (
        Column("operations", "number"), Column("parameters", "count"), Column("from", "count"), Column("to", "count"),
        Column("tokens", "count"), Column("tokens a parameter", "number"), Column("loss (nats)", "loss"),
    )  # fmt: skip
    rows = tuple(
        (
            row["flops"], round(row["parameters"]), *(round(end) for end in row.get("parameters_interval", (0, 0))),
            round(row["tokens"]), round(row["tokens_per_parameter"], 1), row["loss"],
        )
        for row in found["optimal"]
    )  # fmt: skip
    return Table("scaling_budgets", columns, rows)
