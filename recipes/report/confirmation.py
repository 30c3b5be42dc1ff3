"""The ablation's confirmation: weights trained one size up on paired seeds, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mixing.ablation.objective import relative_change
from recipes.progress import several
from recipes.report.axes import colour, legend
from recipes.report.grids import Span, intervals
from recipes.report.markup import Column, Figure, Table
from recipes.report.record import Record


def confirmation_figure(record: Record, found: Mapping[str, Any]) -> Figure:
    """Change of the objective and of every domain against natural weights, arm by arm."""
    confirmed = found["confirmation"]
    lines = list(_lines(confirmed))
    arms = [str(arm["name"]) for arm in confirmed["arms"] if "objective" in arm]
    columns = (
        Column("weights"), Column("measured"), Column("change", "log_change"), Column("from", "log_change"),
        Column("to", "log_change"), Column("pairs", "count"), Column("difference (nats)", "loss"),
    )  # fmt: skip
    rows = tuple(
        (arm, name, one["difference"], one["low"], one["high"], one["pairs"], one.get("nats"))
        for arm, name, one in lines
    )
    larger = confirmed["num_parameters"] > (found.get("num_parameters") or 0)
    seeds = several(len(confirmed.get("seeds", ())), "seed")
    return Figure(
        "confirmation",
        "Trained again" + (", one size up" if larger else ""),
        f"Models of {confirmed['num_parameters']:,} parameters, {confirmed['num_tokens']:,} tokens each, on {seeds} "
        "that every set of weights shares. Dots: mean change of held-out loss against natural weights, seed by seed; "
        "bars: its 95 % interval by a paired t-test. Left of zero is better; a bar across zero has shown nothing. "
        "Only the objective of the proposed weights was put to the test; the rest is shown to be looked at.",
        legend([(_called(arm), colour(place)) for place, arm in enumerate(arms)])
        + intervals(
            [_span(arm, name, one, arms.index(arm)) for arm, name, one in lines],
            "Change of held-out loss against natural weights",
            "change of held-out loss against natural weights (%)",
        ),
        record.command("ablate"),
        Table("confirmation", columns, rows),
    )


def _lines(confirmed: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(arm, what was measured, its interval): the objective of each arm, then domain by domain."""
    arms = [arm for arm in confirmed["arms"] if "objective" in arm]
    for arm in arms:
        yield arm["name"], "objective", arm["objective"]
    for domain in sorted({name for arm in arms for name in arm["domains"]}):
        for arm in arms:
            yield arm["name"], domain, arm["domains"][domain]


def _called(arm: str) -> str:
    return arm.removeprefix("baseline.")


def _span(arm: str, name: str, one: Mapping[str, Any], place: int) -> Span:
    value = relative_change(one["difference"])
    interval = None if one["high"] is None else (relative_change(one["low"]), relative_change(one["high"]))
    bounds = "" if interval is None else f", 95 % interval {interval[0]:+.2%} to {interval[1]:+.2%}"
    told = f"{_called(arm)}, {name}: {value:+.2%} from {several(int(one['pairs']), 'pair')}{bounds}"
    label = name if place == 0 else ""  # the arm's colour is in the legend
    return Span(label, ((value, f"dot {colour(place)}", told),), interval, told)
