"""Scales, ticks and the small marks that all pictures share. Lengths are in pixels of the picture's own grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recipes.progress import scaled
from recipes.report.markup import tag

WIDTH = 760.0
NUM_COLOURS = 8
CHARACTER = 6.4  # mean width of a character of 11.5 px text
NAME_CHARACTER = 7.3  # names are short, and must not be cut: a wide mean


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        place = math.log(max(value, self.low * 1e-3)) if self.log else value
        return self.start + (self.end - self.start) * ((place - low) / (high - low) if high > low else 0.5)

    def ticks(self, number: int = 5) -> list[float]:
        """Round values inside the scale."""
        return log_ticks(self.low, self.high, number) if self.log else ticks(self.low, self.high, number)


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, about as many as wanted, inside a range."""
    if not high > low:
        return [low]
    step = _round_step((high - low) / max(1, number))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def log_ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Powers of ten inside a range, with 2 and 5 times them where there is room; round steps in a narrow range."""
    if high < 3 * low:
        return ticks(low, high, number)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low * 0.999 <= f * 10.0**p <= high * 1.001]
        if len(found) <= number + 2:
            return found
    return found[:: -(-len(found) // number)]


def around(values: Iterable[float | None], margin: float = 0.05) -> tuple[float, float]:
    """The range of some values with a margin; (0, 1) without any."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return low - room, high + room


def label(value: float) -> str:
    """A tick's number: short, and never 0.30000000000000004."""
    return scaled(value) if abs(value) >= 1000 else f"{value:.4g}"


def tip(*words: object) -> Markup:
    """What shows when the pointer rests on a mark."""
    return tag("title", *words)


def words(x: float, y: float, text: object, class_: str = "", anchor: str = "start", **more: object) -> Markup:
    """Text at a place."""
    return tag("text", text, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_ or None, **more)


def cut(text: str, width: float) -> str:
    """The text, shortened in the middle to fit a width."""
    room = max(4, int(width / CHARACTER))
    if len(text) <= room:
        return text
    return f"{text[: room // 2]}…{text[-(room - room // 2 - 1) :]}"


def picture(height: float, description: str, *marks: object, width: float = WIDTH) -> Markup:
    """A picture of a height; it grows and shrinks with the page."""
    return tag(
        "svg", *marks,
        viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=description, xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def colour(place: int) -> str:
    """Class of the n-th colour; there are eight that can be told apart, what comes after is grey."""
    return f"k{place}" if place < NUM_COLOURS else "kx"


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, by its place."""
    return {name: colour(place) for place, name in enumerate(names)}


def legend(names: Sequence[tuple[str, str]]) -> Markup:
    """Names with their colours, above a picture: (name, colour class)."""
    entries = [tag("span", tag("i", class_=class_), name) for name, class_ in names]
    return tag("div", *entries, class_="legend")


def bottom_axis(scale: Scale, y: float, title: str, top: float | None = None, number: int = 6) -> Markup:
    """Ticks and a title below a picture, with hairlines up to `top`."""
    marks = []
    for value in scale.ticks(number):
        x = scale.at(value)
        if top is not None:
            marks.append(tag("line", x1=x, x2=x, y1=top, y2=y, class_="grid"))
        marks.append(words(x, y + 15, label(value), "tick", "middle"))
    marks.append(tag("line", x1=scale.start, x2=scale.end, y1=y, y2=y, class_="axis"))
    marks.append(words((scale.start + scale.end) / 2, y + 32, title, "axis-title", "middle"))
    return Markup("").join(marks)


def left_axis(scale: Scale, x: float, title: str, right: float, number: int = 5) -> Markup:
    """Ticks left of a picture with hairlines to `right`, and the title above them."""
    marks = []
    for value in scale.ticks(number):
        y = scale.at(value)
        marks.append(tag("line", x1=x, x2=right, y1=y, y2=y, class_="grid"))
        marks.append(words(x - 6, y + 4, label(value), "tick", "end"))
    marks.append(words(0.0, min(scale.start, scale.end) - 8, title, "axis-title"))
    return Markup("").join(marks)


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little as possible so that neighbours are `gap` apart, inside a range if there is room.

    Neighbours that would touch are spread around their common mean (pool adjacent violators).
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    pools: list[list[float]] = []  # [sum of wanted starts, number]
    for rank, index in enumerate(order):
        pools.append([places[index] - rank * gap, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = [pools[-1][0] + last[0], pools[-1][1] + last[1]]
    starts = [total / number for total, number in pools for _ in range(round(number))]
    most = max(low, high - gap * (len(places) - 1))
    moved = list(places)
    for rank, index in enumerate(order):
        moved[index] = min(max(starts[rank], low), most) + rank * gap
    return moved
