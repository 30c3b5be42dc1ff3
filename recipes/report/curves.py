"""Curves over tokens: one picture with names at the ends, or a panel for each of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recipes.report.axes import (
    NAME_CHARACTER,
    WIDTH,
    Scale,
    apart,
    around,
    bottom_axis,
    cut,
    left_axis,
    picture,
    tip,
    words,
)
from recipes.report.markup import tag

MOST_POINTS = 240
LEFT = 46.0


@dataclass(frozen=True)
class Curve:
    """A curve: its name, points (x, y) in order, colour class; `dots` marks each point; a thin one steps back."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    dots: bool = False
    thin: bool = False


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most so many of the points: the first, the last, and the lowest and highest of each stretch between.

    So a jump of a single point stays, which an even choice would lose.
    """
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept = [points[0]]
    for place in range(stretches):
        stretch = inner[place * len(inner) // stretches : (place + 1) * len(inner) // stretches]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return [*kept, points[-1]]


def curves_over(
    curves: Sequence[Curve],
    description: str,
    axes: tuple[str, str],
    borders: Sequence[tuple[float, str]] = (),
    height: float = 330.0,
) -> Markup:
    """Curves in one picture with their names at its right end.

    Args:
        curves: from back to front.
        description: for readers who cannot see it.
        axes: titles of x and y with units.
        borders: x values with a name each, such as where a phase begins.
        height: pixels.
    """
    named = [curve for curve in curves if curve.name and curve.points]
    room = min(200.0, 32 + NAME_CHARACTER * max((len(curve.name) for curve in named), default=0)) if named else 12.0
    across, up = _scales(curves, (LEFT, WIDTH - room), (height - 42, 30.0))
    marks = [left_axis(up, LEFT, axes[1], across.end), bottom_axis(across, height - 42, axes[0])]
    marks += _borders(borders, across, height - 42)
    marks += [mark for curve in curves for mark in _curve(curve, across, up, axes)]
    ends = apart([up.at(curve.points[-1][1]) for curve in named], 14.0, 30.0, height - 42)
    for curve, y in zip(named, ends):
        x, at = across.at(curve.points[-1][0]), up.at(curve.points[-1][1])
        if across.end - x > 8:  # a name in the middle would lie on other curves: its colour tells whose it is
            x = across.end
        elif abs(y - at) > 3:
            marks.append(tag("line", x1=x + 2, y1=at, x2=x + 10, y2=y, class_=f"lead-line {curve.colour}"))
        marks.append(tag("circle", cx=x + 14, cy=y, r=3.0, class_=curve.colour))
        marks.append(words(x + 21, y + 4, cut(curve.name, room - 24)))
    return picture(height, description, *marks)


def _scales(curves: Sequence[Curve], across: tuple[float, float], up: tuple[float, float]) -> tuple[Scale, Scale]:
    xs = [x for curve in curves for x, _ in curve.points]
    low, high = around([y for curve in curves for _, y in curve.points])
    return Scale(min(xs, default=0.0), max(xs, default=1.0), *across), Scale(low, high, *up)


def _borders(borders: Sequence[tuple[float, str]], across: Scale, bottom: float) -> list[Markup]:
    marks = []
    for value, name in borders:
        x = across.at(value)
        marks.append(tag("line", x1=x, x2=x, y1=22.0, y2=bottom, class_="cut"))
        marks.append(words(x + 4, 30.0, name, "tick"))
    return marks


def _curve(curve: Curve, across: Scale, up: Scale, axes: tuple[str, str], most: int = MOST_POINTS) -> list[Markup]:
    points = thinned(curve.points, most)
    path = "M" + "L".join(f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in points)
    thin = " thin" if curve.thin else ""
    marks = [tag("path", tip(curve.name), d=path, class_=f"curve {curve.colour}{thin}")] if len(points) > 1 else []
    if curve.dots or len(points) == 1:
        for x, y in points:
            told = f"{curve.name}: {y:.4g} at {x:,.0f} {axes[0].partition(' (')[0].lower()}"
            marks.append(tag("circle", tip(told), cx=across.at(x), cy=up.at(y), r=2.6, class_=f"dot {curve.colour}"))
    return marks


@dataclass(frozen=True)
class Band:
    """A shaded range: points (x, low, high) in order, colour class."""

    points: tuple[tuple[float, float, float], ...]
    colour: str


@dataclass(frozen=True)
class Panel:
    """A small picture of its own: title, curves from back to front, a band behind them, and a dashed line at an x."""

    title: str
    curves: tuple[Curve, ...]
    band: Band | None = None
    cut: float | None = None


def panels_over(
    panels: Sequence[Panel], description: str, axes: tuple[str, str], columns: int = 3, shared: bool = False
) -> Markup:
    """Small pictures side by side; `shared` gives all of them one y scale."""
    gutter, tall = 26.0, 178.0
    wide = (WIDTH - gutter * (columns - 1)) / columns
    marks = []
    for place, panel in enumerate(panels):
        across, up = _panel_scales(panels if shared else [panel], panel, wide, tall)
        drawn = [
            words(0.0, 12.0, cut(panel.title, wide), "panel"),
            left_axis(up, 38.0, axes[1] if place % columns == 0 else "", wide - 6, 4),
        ]
        drawn.append(bottom_axis(across, tall - 48, axes[0], number=4))
        drawn += _behind(panel, across, up, tall - 48)
        drawn += [mark for curve in panel.curves for mark in _curve(curve, across, up, axes, MOST_POINTS // 2)]
        left, top = (place % columns) * (wide + gutter), (place // columns) * tall
        marks.append(tag("g", *drawn, transform=f"translate({left:.0f} {top:.0f})"))
    return picture(-(-len(panels) // columns) * tall, description, *marks)


def _panel_scales(panels: Sequence[Panel], own: Panel, wide: float, tall: float) -> tuple[Scale, Scale]:
    """An x scale of the panel's own, and a y scale over the panels that share it, bands among them."""
    ys = [y for panel in panels for curve in panel.curves for _, y in curve.points]
    ys += [y for panel in panels if panel.band for _, low, high in panel.band.points for y in (low, high)]
    xs = [x for curve in own.curves for x, _ in curve.points]
    low, high = around(ys)
    return Scale(min(xs, default=0.0), max(xs, default=1.0), 38.0, wide - 6), Scale(low, high, tall - 48, 34.0)


def _behind(panel: Panel, across: Scale, up: Scale, bottom: float) -> list[Markup]:
    marks = []
    if panel.band:
        there = [f"{across.at(x):.1f} {up.at(high):.1f}" for x, _, high in panel.band.points]
        back = [f"{across.at(x):.1f} {up.at(low):.1f}" for x, low, _ in reversed(panel.band.points)]
        marks.append(tag("path", d="M" + "L".join([*there, *back]) + "Z", class_=f"band {panel.band.colour}"))
    if panel.cut is not None and across.low <= panel.cut <= across.high:
        x = across.at(panel.cut)
        marks.append(tag("line", x1=x, x2=x, y1=34.0, y2=bottom, class_="cut"))
    return marks
