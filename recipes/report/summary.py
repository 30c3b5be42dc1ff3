"""The report in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from recipes.progress import compact
from recipes.report.amounts import tokens_of_sources
from recipes.report.funnel import funnels
from recipes.report.markup import share, shown
from recipes.report.record import Record
from recipes.report.trained import evaluation_rows

MOST_LINES = 24


def summary_lines(record: Record) -> Iterator[str]:
    """Documents and tokens by source, weights and losses by domain, the export's check."""
    yield from _sources(record)
    yield from _domains(record)
    if record.export:
        yield f"export: logits differ from transformers by {record.export['logit_difference']:.1e}"


def _sources(record: Record) -> Iterator[str]:
    found, tokens = funnels(record), tokens_of_sources(record)
    if not found:
        return
    wide = max(len("source"), *(len(one.source) for one in found))
    yield f"{'source':<{wide}} {'documents':>10} {'kept':>10} {'share':>8} {'tokens':>8}"
    for one in found[:MOST_LINES]:
        number = tokens.get(one.source, {}).get("tokens")
        amount = "" if number is None else compact(float(number))
        part = share(one.kept / one.rows) if one.rows else ""
        yield f"{one.source:<{wide}} {one.rows:>10,} {one.kept:>10,} {part:>8} {amount:>8}"
    if len(found) > MOST_LINES:
        yield f"… and {len(found) - MOST_LINES} more sources"


def _domains(record: Record) -> Iterator[str]:
    natural = (record.analysis or {}).get("natural", {})
    chosen = (record.analysis or {}).get("chosen", {})
    losses = {name: (first, last) for name, _, first, last, _ in evaluation_rows(record)}
    names = sorted(natural.keys() | losses.keys())
    if not names:
        return
    wide = max(len("domain"), *map(len, names))
    yield ""
    yield f"{'domain':<{wide}} {'natural':>8} {'chosen':>8}   held-out loss (nats), first → last"
    for name in names[:MOST_LINES]:
        weights = [shown(table.get(name), "share") for table in (natural, chosen)]
        first, last = losses.get(name, (None, None))
        yield f"{name:<{wide}} {weights[0]:>8} {weights[1]:>8}   {shown(first, 'loss')} → {shown(last, 'loss')}"
    if len(names) > MOST_LINES:
        yield f"… and {len(names) - MOST_LINES} more domains"
