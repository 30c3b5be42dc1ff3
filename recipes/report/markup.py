"""HTML of plain values: tags, numbers as people read them, tables, figures and sections.

Everything that is not `Markup` is escaped where it is put into a tag; so a document's text can do nothing to the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from recipes.progress import scaled

MISSING = "–"


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """A tag around its content; text in it is escaped. `class_` and `data_x` become `class` and `data-x`."""
    opening = Markup("<") + Markup(name)
    for attribute, value in attributes.items():
        if value is not None:
            opening += Markup(' {}="{}"').format(Markup(attribute.rstrip("_").replace("_", "-")), _attribute(value))
    inner = Markup("").join(one if isinstance(one, Markup) else escape(str(one)) for one in content if one is not None)
    return opening + Markup(">") + inner + Markup("</") + Markup(name) + Markup(">")


def _attribute(value: object) -> str:
    """Coordinates are written to a tenth of a pixel: enough for the eye, and a third of the bytes."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- numbers


def count(value: object) -> str:
    """12,345."""
    return f"{value:,.0f}"


def share(value: Any) -> str:
    """12.3 %; a share that is not zero never reads 0.0 %."""
    percent = 100 * value
    if 0 < abs(percent) < 0.05:
        return "<0.1 %" if percent > 0 else ">-0.1 %"
    return f"{percent:.1f} %"


def size(value: Any) -> str:
    """1.23 MB, decimal."""
    return (
        f"{value:,.0f} B"
        if value < 1000
        else scaled(value).replace("k", " k").replace("M", " M").replace("B", " G").replace("T", " T") + "B"
    )


def seconds(value: Any) -> str:
    """12.3 s, 4 min 5 s, 3 h 20 min."""
    if value < 60:
        return f"{value:.1f} s"
    minutes = round(value / 60) if value >= 3600 else int(value // 60)
    return f"{minutes // 60} h {minutes % 60} min" if value >= 3600 else f"{minutes} min {value % 60:.0f} s"


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "code": str,
    "count": count,
    "share": share,
    "size": size,
    "seconds": seconds,
    "loss": lambda value: f"{value:.3f}",
    "number": lambda value: f"{value:.4g}",
    "epochs": lambda value: f"{value:.2f}",
    "change": lambda value: f"{value:+.2%}".replace("%", " %"),
    "log_change": lambda value: f"{math.expm1(value):+.2%}".replace("%", " %"),
}


def shown(value: object, kind: str) -> str:
    """A value as its column shows it; nothing known is a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    words = FORMATS[kind](value)
    return words.replace("-", "−") if isinstance(value, int | float) else words


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class Column:
    """A column: its title, and how values are shown (`FORMATS`); `bar` draws a share's length behind it."""

    title: str
    kind: str = "text"
    bar: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page, which is also a CSV file.

    Attributes:
        name: of the CSV file, without suffix.
        columns: what the cells hold.
        rows: plain values, None where nothing is known.
        head: rows that are shown; the others are in the CSV file only.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    head: int = 200

    def html(self) -> Markup:
        """The table with a link to its CSV file."""
        titles = [tag("th", c.title, scope="col", class_=None if _is_text(c) else "n") for c in self.columns]
        body = [tag("tr", *map(_cell, self.columns, row)) for row in self.rows[: self.head]]
        more = len(self.rows) - self.head
        rest = f"{more:,} more rows: " if more > 0 else ""
        link = tag("p", rest, tag("a", f"{self.name}.csv", href=f"report/{self.name}.csv"), class_="csv")
        grid = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *body))
        return tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=self.name) + link

    def records(self) -> list[list[object]]:
        """The rows of the CSV file, the titles first."""
        return [[column.title for column in self.columns], *[list(row) for row in self.rows]]


def _is_text(column: Column) -> bool:
    return column.kind in ("text", "code")


def _cell(column: Column, value: object) -> Markup:
    words = shown(value, column.kind)
    if column.kind == "code":
        return tag("td", tag("code", words))
    if not column.bar or not isinstance(value, int | float):
        return tag("td", words, class_=None if _is_text(column) else "n")
    return tag("td", words, class_="n bar", style=f"--share:{100 * min(1.0, max(0.0, value)):.1f}%")


# ---------------------------------------------------------------- figures and sections


@dataclass(frozen=True)
class Figure:
    """A picture with its title, a sentence that says how to read it, and the command that explains it."""

    name: str
    title: str
    reading: str
    picture: Markup
    command: str
    table: Table | None = None

    def html(self) -> Markup:
        """The figure; its numbers fold out below it."""
        caption = tag(
            "figcaption",
            tag("h3", self.title),
            tag("p", self.reading),
            tag("p", tag("code", self.command), class_="command"),
        )
        numbers = tag("details", tag("summary", "The numbers"), self.table.html()) if self.table else None
        return tag("figure", caption, tag("div", self.picture, class_="picture"), numbers, id=f"figure-{self.name}")


@dataclass
class Section:
    """A part of the page: its parts in order, and every figure and table that becomes a file of its own."""

    name: str
    title: str
    lead: str = ""
    parts: list[Markup] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    absent: bool = False

    def figure(self, figure: Figure) -> None:
        """Add a picture."""
        self.parts.append(figure.html())
        self.figures.append(figure)
        if figure.table:
            self.tables.append(figure.table)

    def table(self, title: str, table: Table, words: str = "") -> None:
        """Add a table under a title."""
        self.parts += [tag("h3", title), tag("p", words) if words else Markup(""), table.html()]
        self.tables.append(table)

    def say(self, *sentences: object) -> None:
        """Add a paragraph."""
        self.parts.append(tag("p", *sentences))

    def listed(self, sentences: Sequence[object], class_: str = "notes") -> None:
        """Add a list, if there is anything to list."""
        if sentences:
            self.parts.append(tag("ul", *(tag("li", one) for one in sentences), class_=class_))

    def html(self) -> Markup:
        """The section under its heading."""
        lead = tag("p", self.lead, class_="lead") if self.lead else None
        return tag("section", tag("h2", self.title), lead, *self.parts, id=self.name)


def not_made(name: str, title: str, command: str, asked: bool = True) -> Section:
    """A section for what has not been made: one line that says which command makes it."""
    section = Section(name, title, absent=True)
    if asked:
        section.parts.append(tag("p", "Not made yet: ", tag("code", command), " makes it.", class_="absent"))
    else:
        section.parts.append(tag("p", "The recipe asks for none.", class_="absent"))
    return section
