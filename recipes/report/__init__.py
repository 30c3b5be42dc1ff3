"""The report: one HTML file that shows what a run did, and its tables as CSV and LaTeX, its figures as SVG.
It makes nothing else.

record ─▶ sections (funnel, …, trained) ─▶ page
             └─ markup, axes, bars, curves, grids: tables and pictures of plain values
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes.run import Run


def write_report(run: Run) -> Path:
    """Write `report.html` and `report/*.csv` beside a run, say the main numbers, and return the page's path."""
    from recipes.report.page import write_page

    return write_page(run)
