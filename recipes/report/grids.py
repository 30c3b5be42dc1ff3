"""Heat maps, intervals and scatter plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recipes.report.axes import NAME_CHARACTER, WIDTH, Scale, around, bottom_axis, cut, left_axis, picture, tip, words
from recipes.report.markup import tag

STRONGEST = 72  # per cent of the pole's colour at most, so that the number on it stays readable


@dataclass(frozen=True)
class Cell:
    """A cell: what is written, the strength of its colour (-1 to 1), and what is told when pointed at."""

    written: str
    strength: float
    told: str


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Cell]],
    description: str,
    axes: tuple[str, str],
    branches: Sequence[tuple[int, int, float]] = (),
) -> Markup:
    """Cells by row and column; negative is the first pole's colour, positive the second's.

    Args:
        rows: their names.
        columns: their names.
        cells: (rows, columns).
        description: for readers who cannot see it.
        axes: what the rows and what the columns are.
        branches: a tree of the rows, drawn at their right: (left, right, height) of each joint, by row or, from the
            number of rows on, by earlier joint.
    """
    tree = 96.0 if branches else 0.0
    labels = min(170.0, 18 + NAME_CHARACTER * max((len(name) for name in rows), default=0))
    wide = min(96.0, (WIDTH - labels - tree) / max(1, len(columns)))
    tall = 30.0 if len(rows) <= 20 else 18.0
    leaning = wide < 12 + 6.6 * max((len(name) for name in columns), default=0)
    # The last leaning name needs room at its right.
    wide = min(wide, (WIDTH - labels - max(80, tree)) / max(1, len(columns))) if leaning else wide
    top = (34 + 4.4 * min(24, max((len(name) for name in columns), default=0))) if leaning else 46.0
    marks = [words(0.0, 10.0, f"rows: {axes[0]}; columns: {axes[1]}", "axis-title")]
    for place, name in enumerate(columns):
        x = labels + (place + 0.5) * wide
        if leaning:
            turned = f"rotate(-40 {x:.0f} {top - 6:.0f})"
            marks.append(words(x, top - 6, cut(name, 150), "name", transform=turned))
        else:
            marks.append(words(x, top - 8, name, "name", "middle"))
    for line, (name, row) in enumerate(zip(rows, cells)):
        y = top + line * tall
        marks.append(words(labels - 8, y + tall / 2 + 4, cut(name, labels - 10), "name", "end"))
        marks += [mark for place, cell in enumerate(row) for mark in _cell(cell, labels + place * wide, y, wide, tall)]
    if branches:
        x = labels + len(columns) * wide + 8
        marks += _tree(
            branches, len(rows), Scale(0.0, max(height for *_, height in branches), x, x + tree - 22), top, tall
        )
    return picture(top + len(rows) * tall + (30 if branches else 6), description, *marks)


def _tree(
    branches: Sequence[tuple[int, int, float]], number: int, across: Scale, top: float, tall: float
) -> list[Markup]:
    """Joints of rows and of joints, with a scale of their heights below."""
    places = {row: (across.start, top + (row + 0.5) * tall - 1) for row in range(number)}
    marks = []
    for joint, (left, right, height) in enumerate(branches):
        x, ((x1, y1), (x2, y2)) = across.at(height), (places[int(left)], places[int(right)])
        path = f"M{x1:.1f} {y1:.1f}L{x:.1f} {y1:.1f}L{x:.1f} {y2:.1f}L{x2:.1f} {y2:.1f}"
        marks.append(tag("path", tip(f"{100 * height:.0f} % more loss"), d=path, class_="branch"))
        places[number + joint] = (x, (y1 + y2) / 2)
    bottom = top + number * tall
    marks += [
        words(across.at(value), bottom + 14, f"{100 * value:.0f} %", "tick", "middle") for value in across.ticks(2)
    ]
    return marks


def _cell(cell: Cell, x: float, y: float, wide: float, tall: float) -> list[Markup]:
    strength = max(-1.0, min(1.0, cell.strength))
    pole = "--cool" if strength < 0 else "--warm"
    fill = f"fill: color-mix(in oklab, var({pole}) {STRONGEST * abs(strength):.0f}%, var(--cell))"
    box = tag("rect", tip(cell.told), x=x, y=y, width=wide - 2, height=tall - 2, rx=3.0, style=fill)
    if wide < 8 + 6.6 * len(cell.written):
        return [box]
    return [box, words(x + wide / 2 - 1, y + tall / 2 + 3, cell.written, "cell", "middle")]


@dataclass(frozen=True)
class Span:
    """A line of an interval plot: marks (value, class, what it is), and an interval in the same unit or None."""

    name: str
    marks: tuple[tuple[float, str, str], ...]
    interval: tuple[float, float] | None = None
    told: str = ""


def intervals(spans: Sequence[Span], description: str, axis: str) -> Markup:
    """Marks and intervals, given as shares and drawn in per cent, on one scale with zero; a line for each name."""
    labels = min(190.0, 18 + NAME_CHARACTER * max((len(span.name) for span in spans), default=0))
    ends = [value for span in spans for value, _, _ in span.marks]
    ends += [value for span in spans for value in span.interval or ()]
    low, high = around([0.0, *ends], 0.04)
    scale = Scale(0.0 if min(ends, default=0.0) >= 0 else low, high, labels, WIDTH - 14)
    tall = 28.0
    height = 6 + tall * len(spans)
    marks = [bottom_axis(Scale(100 * scale.low, 100 * scale.high, labels, WIDTH - 14), height, axis, top=2.0)]
    marks.append(tag("line", x1=scale.at(0.0), x2=scale.at(0.0), y1=2.0, y2=height, class_="axis"))
    for place, span in enumerate(spans):
        y = 4 + tall * (place + 0.5)
        marks.append(words(labels - 10, y + 4, cut(span.name, labels - 12), "name", "end"))
        if span.interval:
            start, end = (scale.at(value) for value in span.interval)
            marks.append(tag("line", tip(span.told), x1=start, x2=end, y1=y, y2=y, class_="interval"))
        for value, class_, told in span.marks:
            marks.append(tag("circle", tip(told), cx=scale.at(value), cy=y, r=5.0, class_=class_))
    return picture(height + 38, description, *marks)


def scatter(points: Sequence[tuple[float, float, str, str]], description: str, axes: tuple[str, str]) -> Markup:
    """Points (x, y, class, what it is) on two equal scales with the diagonal, where both agree."""
    side = 360.0
    low, high = around([value for x, y, _, _ in points for value in (x, y)], 0.08)
    across, up = Scale(low, high, 56.0, 56.0 + side - 70), Scale(low, high, side - 44, 26.0)
    marks = [left_axis(up, 56.0, axes[1], across.end), bottom_axis(across, side - 44, axes[0], number=5)]
    marks.append(tag("line", x1=across.at(low), y1=up.at(low), x2=across.at(high), y2=up.at(high), class_="diagonal"))
    marks += [tag("circle", tip(told), cx=across.at(x), cy=up.at(y), r=4.5, class_=c) for x, y, c, told in points]
    return picture(side, description, *marks, width=side)
