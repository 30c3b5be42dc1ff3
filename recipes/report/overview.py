"""The page's beginning: what the run is, its main numbers, how long it took, on what, with which versions."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from recipes.report.amounts import tokens_of_sources
from recipes.report.axes import colour
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.funnel import Funnel
from recipes.report.markup import Column, Figure, Section, Table, count, seconds, share, size, tag
from recipes.report.record import Record
from recipes.report.trained import train_seconds

PACKAGES = (
    "gristmill", "datatrove", "numpy", "numba", "polars", "pyarrow", "scikit-learn", "lightgbm", "tokenizers", "torch",
    "lightning", "transformers",
)  # fmt: skip


def overview_section(record: Record, found: Sequence[Funnel]) -> Section:
    """Key figures, wall times, recipe, versions and machine."""
    section = Section("overview", "Overview")
    section.parts.append(_tiles(record, found))
    times = _times(record)
    if times:
        section.figure(_times_picture(record, times))
    section.parts.append(_recipe(record))
    section.parts.append(_machine(record))
    return section


def _tiles(record: Record, found: Sequence[Funnel]) -> Markup:
    tiles = [
        tag("div", tag("b", value), tag("span", name), tag("small", more))
        for value, name, more in _figures(record, found)
    ]
    return tag("div", *tiles, class_="tiles")


def _figures(record: Record, found: Sequence[Funnel]) -> Iterator[tuple[str, str, str]]:
    rows, kept = sum(one.rows for one in found), sum(one.kept for one in found)
    if rows:
        yield count(kept), "documents kept", f"of {rows:,} read ({share(kept / rows)})"
    sources = tokens_of_sources(record).values()
    if sources:
        text = sum(int(counts.get("bytes", 0)) for counts in sources)
        yield count(sum(int(counts.get("tokens", 0)) for counts in sources)), "tokens", f"from {size(text)} of text"
    if record.analysis:
        runs = len(record.analysis.get("runs", []))
        weights = (
            "natural weights stay"
            if record.analysis.get("reason") == "natural"
            else "other than natural weights chosen"
        )
        yield count(runs), "proxies", weights
    if record.plan:
        yield count(record.plan.num_tokens), "tokens trained on", f"{record.plan.num_steps:,} train steps"
    losses = [one["loss_nats"] for one in record.evaluation if one["loss_nats"] is not None]
    if losses:
        bits = bits_per_byte(record.evaluation)
        more = f"; {bits:.3f} bits per byte of all their text" if bits is not None else ""
        yield f"{sum(losses) / len(losses):.3f}", "nats per token held out", f"mean of {len(losses)} domains{more}"


def bits_per_byte(evaluation: Sequence[Mapping[str, Any]]) -> float | None:
    """All bits by all bytes over domains whose bytes are known, as training logs it; None where none are."""
    known = [one for one in evaluation if one["loss_nats"] is not None and one["bits_per_byte"]]
    bits = [one["loss_nats"] * one["num_tokens"] / math.log(2) for one in known]
    num_bytes = sum(of / one["bits_per_byte"] for of, one in zip(bits, known))
    return sum(bits) / num_bytes if num_bytes else None


# ---------------------------------------------------------------- times


def _times(record: Record) -> list[tuple[str, str, float]]:
    """(part, stage, seconds) of every stage that a record of its making is kept of."""
    found = []
    for stage in record.stages:
        made = record.made_in(stage)
        if made:
            found.append((stage.part, stage.title, float(made["seconds"])))
        elif stage.part == "train":
            spent = train_seconds(record)
            if spent:
                found.append((stage.part, f"{stage.title}: train steps", spent))
    return found


def _times_picture(record: Record, times: Sequence[tuple[str, str, float]]) -> Figure:
    bars = []
    for part in dict.fromkeys(part for part, _, _ in times):
        mine = [(title, spent) for one, title, spent in times if one == part]
        pieces = tuple(Piece(spent, colour(0), f"{title}: {seconds(spent)}") for title, spent in mine)
        bars.append(Bar(part, pieces, f"{seconds(sum(s for _, s in mine))} in {len(mine)} stages"))
    total = sum(spent for _, _, spent in times)
    return Figure(
        "times",
        "Wall time by part",
        f"Seconds of making what this run uses, {seconds(total)} in all: a piece for each stage; point at one to see "
        "which. A stage that was reused shows the time of its making.",
        stacked_bars(bars, "Wall time of each part of the run", "seconds", notes=150.0),
        record.command("run"),
        Table("wall_times", (Column("part"), Column("stage"), Column("seconds", "seconds")), tuple(times)),
    )


# ---------------------------------------------------------------- recipe and machine


def _recipe(record: Record) -> Markup:
    path = record.recipe.path
    text = Path(path).read_text(encoding="utf-8") if path is not None and Path(path).exists() else ""
    return tag(
        "details",
        tag("summary", "The recipe: ", tag("code", str(path))),
        tag("pre", text),
        tag(
            "p",
            "Every value with its origin, defaults and presets too: ",
            tag("code", record.command("show", "--resolved")),
        ),
        open="",
    )


def _machine(record: Record) -> Markup:
    made = [one for one in map(record.made_in, record.stages) if one]
    hosts = sorted({str(one["host"]) for one in made if one.get("host")})
    starts = [float(one["started"]) for one in made if one.get("started")]
    rows: list[tuple[str, str]] = [("Python", platform.python_version())]
    rows += [(name, version) for name in PACKAGES if (version := _version(name))]
    rows += [("system", platform.platform()), ("processor", _processor()), ("cores", str(os.cpu_count() or 1))]
    if hosts:
        rows.append(("made on", ", ".join(hosts)))
    if starts:
        first, last = (
            datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC") for moment in (min(starts), max(starts))
        )
        rows.append(("stages begun", first if first == last else f"{first} to {last}"))
    body = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows]
    return tag(
        "details",
        tag("summary", "Versions and machine"),
        tag("p", "Of the machine that wrote this report; stages keep the name of the host that made them."),
        tag("div", tag("table", tag("tbody", *body)), class_="scroll"),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        for line in told.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
