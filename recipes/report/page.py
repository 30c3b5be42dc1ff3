"""The page as a whole: its sections in order, its tables and figures as files, and the summary in the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from recipes.artifacts import write_atomically
from recipes.errors import RunError
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
from recipes.report.standalone import svg_of
from recipes.report.summary import summary_lines
from recipes.report.trained import evaluation_section, export_section, training_section

if TYPE_CHECKING:
    from recipes.run import Run

STYLE = Path(__file__).with_name("report.css")


def write_page(run: Run, groups: Mapping[str, str] | None = None) -> Path:
    """Write `report.html` beside the run, its tables and figures into `report/`, and say the main numbers."""
    record = read_record(run)
    sections = sections_of(record, groups)
    folder = run.folder / "report"
    files = write_parts(folder, sections)
    for stale in {path for kind in ("csv", "tex", "svg") for path in folder.glob(f"*.{kind}")}:
        if stale.name not in files:
            stale.unlink()
    path = run.folder / "report.html"
    write_atomically(path, page_of(record, sections))
    run.narrator.heading("Report")
    for line in summary_lines(record):
        run.narrator.say(f"  {line}")
    run.narrator.say(f"\n  {path}")
    return path


def write_parts(folder: Path, sections: Sequence[Section]) -> set[str]:
    """Write every table as CSV and LaTeX and every figure as SVG; returns the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for section in sections:
        for table in section.tables:
            files |= {f"{table.name}.csv": csv_of(table), f"{table.name}.tex": latex_of(table)}
        files |= {f"{figure.name}.svg": svg_of(figure) for figure in section.figures}
    for name, text in files.items():
        write_atomically(folder / name, text)
    return set(files)


def draw_figures(run: Run, names: Sequence[str], groups: Mapping[str, str] | None, folder: Path) -> list[Path]:
    """Draw some figures of the report anew, each with its numbers beside it, and nothing else.

    Raises:
        RunError: for a figure that this report does not have, with those that it has.
    """
    known = {figure.name: figure for section in sections_of(read_record(run), groups) for figure in section.figures}
    unknown = [name for name in names if name not in known]
    if unknown:
        listed = ", ".join(known) or "none: nothing has been made yet"
        raise RunError(f"{run.recipe.path}: the report has no figure {', '.join(unknown)}; it has {listed}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        written.append(folder / f"{name}.svg")
        write_atomically(written[-1], svg_of(known[name]))
        table = known[name].table
        if table is not None:
            write_atomically(folder / f"{table.name}.csv", csv_of(table))
            write_atomically(folder / f"{table.name}.tex", latex_of(table))
    return written


def sections_of(record: Record, groups: Mapping[str, str] | None = None) -> list[Section]:
    """Every section in order; what was not made is one line."""
    found = funnels(record)
    curation = curation_section(record)
    if found:
        add_measures(record, curation)
        add_samples(record, curation, found)
    rest: list[Callable[[Record], Section | None]] = [
        tokens_section, partial(ablation_section, groups=groups), scaling_section, plan_section, training_section,
        evaluation_section, export_section,
    ]  # fmt: skip
    made = [section(record) for section in rest]
    return [overview_section(record, found), curation, *(section for section in made if section is not None)]


def write_alone(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write sections as a page of their own, their tables and figures into the folder `report` beside it."""
    write_parts(path.parent / "report", sections)
    write_atomically(path, html_of(title, sections))
    return path


def write_ablation(run: Run, analysis: Mapping[str, Any], path: Path) -> Path:
    """Write the figures and tables of an analysis that no artifact holds: of a table, or of a swarm that goes on."""
    return write_alone(path, f"{run.name}: ablation", [ablation_section(read_record(run), analysis)])


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
