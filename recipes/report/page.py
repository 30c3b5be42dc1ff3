"""The page as a whole: its sections in order, its tables as CSV files, and the summary in the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from recipes.artifacts import write_atomically
from recipes.report.ablation import ablation_section
from recipes.report.amounts import tokens_section
from recipes.report.funnel import curation_section, funnels
from recipes.report.latex import latex_of
from recipes.report.markup import Section, Table, tag
from recipes.report.measured import add_measures
from recipes.report.overview import overview_section
from recipes.report.planned import plan_section
from recipes.report.record import Record, read_record
from recipes.report.samples import add_samples
from recipes.report.scaling import scaling_section
from recipes.report.summary import summary_lines
from recipes.report.trained import evaluation_section, export_section, training_section

if TYPE_CHECKING:
    from recipes.run import Run

STYLE = Path(__file__).with_name("report.css")


def write_page(run: Run) -> Path:
    """Write `report.html`, `report/*.csv` and `report/*.tex` beside the run, and say the main numbers."""
    record = read_record(run)
    sections = sections_of(record)
    folder = run.folder / "report"
    folder.mkdir(exist_ok=True)
    tables = [table for section in sections for table in section.tables]
    for table in tables:
        write_atomically(folder / f"{table.name}.csv", csv_of(table))
        write_atomically(folder / f"{table.name}.tex", latex_of(table))
    kept = {folder / f"{table.name}.{kind}" for table in tables for kind in ("csv", "tex")}
    for stale in {*folder.glob("*.csv"), *folder.glob("*.tex")} - kept:
        stale.unlink()
    path = run.folder / "report.html"
    write_atomically(path, page_of(record, sections))
    run.narrator.heading("Report")
    for line in summary_lines(record):
        run.narrator.say(f"  {line}")
    run.narrator.say(f"\n  {path}")
    return path


def sections_of(record: Record) -> list[Section]:
    """Every section in order; what was not made is one line."""
    found = funnels(record)
    curation = curation_section(record)
    if found:
        add_measures(record, curation)
        add_samples(record, curation, found)
    rest: list[Callable[[Record], Section | None]] = [
        tokens_section, ablation_section, scaling_section, plan_section, training_section, evaluation_section,
        export_section,
    ]  # fmt: skip
    made = [section(record) for section in rest]
    return [overview_section(record, found), curation, *(section for section in made if section is not None)]


def write_alone(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write sections as a page of their own, its tables as CSV into the folder `report` beside it."""
    (path.parent / "report").mkdir(parents=True, exist_ok=True)
    for section in sections:
        for table in section.tables:
            write_atomically(path.parent / "report" / f"{table.name}.csv", csv_of(table))
    write_atomically(path, html_of(title, sections))
    return path


def page_of(record: Record, sections: Sequence[Section]) -> str:
    """The report's page: one file that needs nothing else."""
    foot = tag("footer", tag("p", "Drawn again by ", tag("code", record.command("report")), "; it makes nothing else."))
    return html_of(record.name, sections, foot)


def html_of(name: str, sections: Sequence[Section], foot: Markup | None = None) -> str:
    """A page of sections under a title."""
    style = Markup(STYLE.read_text(encoding="utf-8"))
    contents = [
        tag("li", tag("a", section.title, href=f"#{section.name}", class_="gone" if section.absent else None))
        for section in sections
    ]
    head = Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
    head += Markup('<meta name="color-scheme" content="light dark">') + tag("title", f"{name} · gristmill")
    title = tag("header", tag("p", "gristmill report", class_="over"), tag("h1", name))
    contents_html = tag("nav", tag("ol", *contents), aria_label="Contents")
    body = tag("body", contents_html, tag("main", title, *(section.html() for section in sections), foot))
    return Markup("<!doctype html>\n") + tag("html", tag("head", head, tag("style", style)), body, lang="en") + "\n"


def csv_of(table: Table) -> str:
    """A table as CSV: numbers as they are, an empty cell where nothing is known."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.records()])
    return stream.getvalue()
