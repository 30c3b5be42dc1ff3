"""Bars: stacked and side by side, and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from recipes.report.axes import NAME_CHARACTER, WIDTH, Scale, bottom_axis, cut, picture, ticks, tip, words
from recipes.report.markup import tag

ROW, THICK = 26.0, 17.0
LABELS = 150.0
_GAP = 1.5


@dataclass(frozen=True)
class Piece:
    """A piece of a bar: its length, colour class, what shows on it, and what shows when pointed at."""

    length: float
    colour: str
    told: str
    written: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar: its name, its pieces from left to right, and a note at its end."""

    name: str
    pieces: tuple[Piece, ...]
    note: str = ""


def stacked_bars(
    bars: Sequence[Bar], description: str, axis: str, most: float | None = None, notes: float = 130.0
) -> Markup:
    """Bars from one zero line, their pieces end to end.

    Args:
        bars: from top to bottom.
        description: for readers who cannot see it.
        axis: title with the unit.
        most: end of the scale; the longest bar without it.
        notes: room for the notes, pixels.
    """
    labels = min(LABELS, 16 + NAME_CHARACTER * max((len(bar.name) for bar in bars), default=0))
    longest = max((sum(piece.length for piece in bar.pieces) for bar in bars), default=1.0) or 1.0
    scale = Scale(0.0, most or ticks_end(longest), labels, WIDTH - notes)
    height = len(bars) * ROW + 6
    marks: list[Markup] = [bottom_axis(scale, height, axis, top=2.0)]
    for place, bar in enumerate(bars):
        y = 4 + place * ROW + (ROW - THICK) / 2
        marks.append(words(labels - 8, y + THICK - 5, cut(bar.name, labels - 10), "name", "end"))
        marks += _pieces(bar, scale, y)
        if bar.note:
            end = scale.end if notes else scale.at(sum(piece.length for piece in bar.pieces))
            marks.append(words(end + 10, y + THICK - 5, bar.note, "note"))
    return picture(height + 38, description, *marks)


def ticks_end(longest: float) -> float:
    """The end of a scale that holds the longest bar."""
    return max(longest, ticks(0.0, longest, 5)[-1])


def _pieces(bar: Bar, scale: Scale, y: float) -> list[Markup]:
    marks, so_far = [], 0.0
    for piece in bar.pieces:
        x, end = scale.at(so_far), scale.at(so_far + piece.length)
        so_far += piece.length
        if piece.length <= 0:
            continue
        # A hairline of the ground between neighbours keeps them apart; a sliver stays visible.
        width = max(0.6, end - x - _GAP)
        marks.append(tag("rect", tip(piece.told), x=x, y=y, width=width, height=THICK, rx=2.0, class_=piece.colour))
        if piece.written and width > 8 + 6.6 * len(piece.written):
            marks.append(words(x + width / 2, y + THICK - 5, piece.written, "on", "middle"))
    return marks


@dataclass(frozen=True)
class Counted:
    """A histogram of parts on top of each other.

    Attributes:
        title: above it.
        edges: of the bins, one more than bins.
        parts: name, colour class and counts by bin of each part, from the bottom.
        marked: values that get a line.
    """

    title: str
    edges: tuple[float, ...]
    parts: tuple[tuple[str, str, tuple[int, ...]], ...]
    marked: tuple[float, ...] = ()


def histograms(panels: Sequence[Counted], description: str, axis: str) -> Markup:
    """Histograms in two columns, each on its own logarithmic scale."""
    gutter, tall = 34.0, 170.0
    wide = (WIDTH - gutter) / 2
    marks = []
    for place, panel in enumerate(panels):
        left, top = (place % 2) * (wide + gutter), (place // 2) * tall
        marks.append(tag("g", *_histogram(panel, wide, tall - 56, axis), transform=f"translate({left:.0f} {top:.0f})"))
    rows = -(-len(panels) // 2)
    return picture(rows * tall, description, *marks)


def _histogram(panel: Counted, wide: float, tall: float, axis: str) -> list[Markup]:
    across = Scale(panel.edges[0], panel.edges[-1], 0.0, wide, log=True)
    heights = [sum(bin_) for bin_ in zip(*(counts for _, _, counts in panel.parts))]
    up = Scale(0.0, max(heights, default=1) or 1, tall, 34.0)
    marks = [words(0.0, 12.0, panel.title, "panel"), bottom_axis(across, tall, axis, number=5)]
    for place, (low, high) in enumerate(pairwise(panel.edges)):
        below = 0
        for name, colour, counts in panel.parts:
            if counts[place]:
                x, y = across.at(low), up.at(below + counts[place])
                told = f"{low:.4g} to {high:.4g}: {counts[place]:,} documents {name}".rstrip()
                size = {"width": max(0.8, across.at(high) - x - 0.8), "height": max(0.8, up.at(below) - y)}
                marks.append(tag("rect", tip(told), x=x, y=y, class_=colour, **size))
                below += counts[place]
    for place, value in enumerate(panel.marked):
        x = across.at(value)
        marks.append(tag("line", tip(f"cutoff {value:.4g}"), x1=x, x2=x, y1=20.0, y2=tall, class_="cut"))
        side = "end" if place == 0 and len(panel.marked) > 1 else "start"
        marks.append(words(x - 4 if side == "end" else x + 4, 28.0, f"{value:.4g}", "tick", side))
    return marks
