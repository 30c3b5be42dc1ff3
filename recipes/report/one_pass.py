"""MindLLM's protocol beside the repetition-controlled one: losses of one pass over each domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.progress import compact
from recipes.report.axes import colour, legend
from recipes.report.curves import Curve, Panel, panels_over
from recipes.report.grids import Cell, heat_map
from recipes.report.markup import Column, Figure, Table
from recipes.report.record import Record

MOST_DOMAINS, MOST_PANELS = 32, 12


def one_pass_figures(record: Record, found: Mapping[str, Any]) -> list[Figure]:
    """The loss matrix of one pass over each domain, and its curves over tokens."""
    runs: Mapping[str, Any] = found["one_pass"]
    order = [name for name in (found.get("clusters") or {}).get("order", []) if name in runs]
    trained = [*order, *sorted(set(runs) - set(order))]
    there = {name for run in runs.values() for name in run["losses"]}
    columns = [name for name in (found.get("clusters") or {}).get("measured", []) if name in there]
    measured = [*columns, *sorted(there - set(columns))]
    return [_matrix(record, found, trained, measured), _curves(record, runs, measured)]


def _matrix(record: Record, found: Mapping[str, Any], trained: list[str], measured: list[str]) -> Figure:
    runs, equal = found["one_pass"], found.get("matrix") or {}
    change = {
        (a, b): runs[a]["losses"][b] - equal[a][b]
        for a in trained
        for b in measured
        if runs[a]["losses"].get(b) is not None and (equal.get(a) or {}).get(b) is not None
    }
    most = max((abs(value) for value in change.values()), default=0.0) or 1.0
    drawn, across = trained[:MOST_DOMAINS], measured[:MOST_DOMAINS]
    cells = [[_cell(a, b, runs[a]["losses"].get(b), change.get((a, b)), most) for b in across] for a in drawn]
    cut = len(drawn) < len(trained) or len(across) < len(measured)
    columns = (
        Column("trained on"), Column("tokens", "count"), Column("evaluated on"), Column("loss of one pass", "loss"),
        Column("loss of equal tokens", "loss"), Column("difference (nats)", "loss"),
    )  # fmt: skip
    rows = tuple(
        (a, runs[a]["tokens"], b, runs[a]["losses"].get(b), (equal.get(a) or {}).get(b), change.get((a, b)))
        for a in trained
        for b in measured
    )
    return Figure(
        "one-pass",
        "One pass over each domain, as MindLLM did it",
        "Losses (nats per token) of proxies that read their domain once, all domains scaled by one factor, so that a "
        "large source trains longer (tokens in brackets). Colour compares with the matrix of equal tokens: blue is "
        "better, red worse. Where the two disagree on which text helps a domain, length spoke and not the text."
        + (f" The first {MOST_DOMAINS} domains are drawn; the table has all." if cut else ""),
        legend([("better than with equal tokens", "cool"), ("worse", "warm")])
        + heat_map(
            [f"{name} ({compact(runs[name]['tokens'])})" for name in drawn],
            across,
            cells,
            "Loss of one pass by domain trained on and evaluated on",
            ("trained on", "evaluated on"),
        ),
        record.command("ablate"),
        Table("one_pass", columns, rows, head=40),
    )


def _cell(a: str, b: str, loss: float | None, change: float | None, most: float) -> Cell:
    if loss is None:
        return Cell("", 0.0, f"one pass over {a}, evaluated on {b}: not measured")
    against = "" if change is None else f", {change:+.3f} nats against equal tokens"
    return Cell(f"{loss:.2f}", (change or 0.0) / most, f"one pass over {a}, evaluated on {b}: {loss:.3f} nats{against}")


def _curves(record: Record, runs: Mapping[str, Any], measured: list[str]) -> Figure:
    panels = []
    for target in measured[:MOST_PANELS]:
        curves = []
        for name in sorted(runs, key=lambda one: one == target):  # its own proxy on top
            curve = runs[name]["curve"]
            points = [(float(x), y) for x, y in zip(curve["tokens"], curve["losses"].get(target, [])) if y is not None]
            own = name == target
            curves.append(Curve(name, tuple(points), colour(1) if own else "kx", dots=len(points) == 1, thin=not own))
        panels.append(Panel(target, tuple(curves)))
    rows = tuple(
        (name, target, tokens, loss)
        for name, run in runs.items()
        for target, losses in run["curve"]["losses"].items()
        for tokens, loss in zip(run["curve"]["tokens"], losses)
    )
    columns = (
        Column("trained on"), Column("evaluated on"), Column("tokens", "count"),
        Column("loss (nats per token)", "loss"),
    )  # fmt: skip
    return Figure(
        "one-pass-curves",
        "Loss over tokens of one pass",
        "A panel for each measured domain, a curve for each proxy; orange read that domain. Curves end where their "
        "domain does: compare them at the same number of tokens, not at their ends."
        + (f" The first {MOST_PANELS} domains are drawn." if len(measured) > MOST_PANELS else ""),
        legend([("this domain's proxy", colour(1)), ("others", "kx")])
        + panels_over(panels, "Held-out loss of one pass over tokens", ("tokens", "nats per token")),
        record.command("ablate"),
        Table("one_pass_curves", columns, rows, head=40),
    )
