"""Pictures of the ledger's rows: perplexities with their cutoffs, duplicates between sources, sizes of clusters.

Columns are read shard by shard, in row batches; what stays in memory are histograms of constant size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.fields import looks_like_path
from curation.layers import kept_rows, layer_columns, mask_columns, read_layers
from curation.ledger import Source
from curation.perplexity.buckets import ccnet_cutoffs, cutoffs, read_cutoffs, read_histograms
from curation.perplexity.levels import level_names
from recipes.progress import several
from recipes.report.axes import colour, legend
from recipes.report.bars import Bar, Counted, Piece, histograms, stacked_bars
from recipes.report.buckets import Scored, add_buckets, column_of, read_scored
from recipes.report.funnel import steps_counted
from recipes.report.grids import Cell, heat_map
from recipes.report.markup import Column, Figure, Section, Table, share
from recipes.report.record import Record, Stage

BINS = 44
MOST_PANELS = 12
MOST_SOURCES = 24
NO_BUCKET = "no bucket"
BUCKET_COLOURS = {"head": colour(2), "tail": colour(1)}  # all between them have the third colour


def add_measures(record: Record, section: Section) -> None:
    """Add the pictures for what the run measured; a step that is not there leaves none."""
    for step in record.recipe.steps:
        if step.kind == "perplexity":
            _add_perplexity(record, section, step)
    for stage in record.of_part("curate"):
        if "clusters" in stage.counts:
            _add_duplicates(record, section, stage)


# ---------------------------------------------------------------- perplexity


def _add_perplexity(record: Record, section: Section, step: Any) -> None:
    panels: list[Counted] = []
    rows: list[tuple[object, ...]] = []
    scored: list[Scored] = []
    for source in record.ledger.sources if record.ledger else ():
        column, bucket = column_of(source, f"{step.prefix}perplexity"), column_of(source, f"{step.prefix}bucket")
        found = _values(source, column, bucket) if column and bucket else {}
        if found:
            cutoffs = _cutoffs(record, step, source)
            if one := read_scored(source, step, cutoffs):
                scored.append(one)
            levels = level_names(len(cutoffs)) if cutoffs else [NO_BUCKET]
            panels.append(_counted(source.name, found, cutoffs, levels))
            rows += _bucket_rows(source.name, found, levels)
    if not panels:
        return
    more = "" if len(panels) <= MOST_PANELS else f" The first {MOST_PANELS} of {len(panels)} sources are drawn."
    columns = (Column("source"), Column("bucket"), Column("documents", "count"), Column("share", "share", bar=True))
    section.figure(
        Figure(
            f"{step.prefix}perplexity",
            f"Perplexity ({step.name})",
            "How surprising each document that is kept at the end is to a small language model of its language: the "
            "further left, the closer to the model's own text. Dashed lines are the cutoffs between buckets." + more,
            legend([("head", BUCKET_COLOURS["head"]), ("middle", colour(0)), ("tail", BUCKET_COLOURS["tail"])])
            + histograms(panels[:MOST_PANELS], "Histograms of perplexity by source", "perplexity (logarithmic)"),
            record.command("why", "CONTENT_ID"),
            Table(f"{step.prefix}perplexity_buckets", columns, tuple(rows)),
        )
    )
    add_buckets(record, section, step, scored)


def _values(source: Source, column: str, bucket: str) -> dict[tuple[float, str], int]:
    """Kept documents by perplexity and bucket; perplexities are rounded so that memory stays small."""
    counted: Counter[tuple[float, str]] = Counter()
    for shard in source.shards:
        known = {name for path in shard.layers for name in layer_columns(path)}
        if {column, bucket} <= known:
            for batch in read_layers(shard.layers, [column, bucket, *mask_columns(shard.layers)]):
                rows = batch.filter(pc.and_(pa.array(kept_rows(batch)), batch.column(column).is_valid()))
                values, names = rows.column(column).to_pylist(), rows.column(bucket).to_pylist()
                counted.update((float(f"{value:.4g}"), name or NO_BUCKET) for value, name in zip(values, names))
    return dict(sorted(counted.items()))


def _cutoffs(record: Record, step: Any, source: Source) -> tuple[float, ...]:
    """Where the buckets of a source are cut."""
    if step.buckets.values is not None:
        return tuple(step.buckets.values)
    if step.buckets.shares is None:
        return ccnet_cutoffs(source.language) or ()
    if looks_like_path(step.buckets.of):
        counted = read_histograms(Path(step.buckets.of))
        group = source.name if step.buckets.by == "source" else source.language
        return cutoffs(counted[group], step.buckets.shares) if group in counted else ()
    path = record.path(f"{step.name} cutoffs", "all.cutoffs.json")
    group = source.name if step.buckets.by == "source" else source.language
    return (read_cutoffs(path, group) if path else None) or ()


def _counted(
    name: str, found: Mapping[tuple[float, str], int], cutoffs: Sequence[float], levels: Sequence[str]
) -> Counted:
    values = [value for value, _ in found]
    low, high = min(values) * 0.98, max(values) * 1.02
    edges = np.geomspace(low, high, BINS + 1)
    parts = []
    for level in levels:
        counts = [0] * BINS
        for (value, bucket), number in found.items():
            if bucket == level:
                counts[int(np.searchsorted(edges, value, side="right")) - 1] += number
        parts.append((f"in {level}", BUCKET_COLOURS.get(level, colour(0)), tuple(counts)))
    marked = tuple(value for value in cutoffs if low < value < high)
    return Counted(f"{name}, {sum(found.values()):,} documents", tuple(map(float, edges)), tuple(parts), marked)


def _bucket_rows(
    name: str, found: Mapping[tuple[float, str], int], levels: Sequence[str]
) -> Iterator[tuple[object, ...]]:
    total = sum(found.values())
    for level in levels:
        number = sum(count for (_, bucket), count in found.items() if bucket == level)
        yield name, level, number, number / total


# ---------------------------------------------------------------- duplicates


def _add_duplicates(record: Record, section: Section, stage: Stage) -> None:
    step = steps_counted(stage)[0]
    lost, reached = int(stage.counts.get(f"drop.{step}.duplicate", 0)), int(stage.counts[f"reached.{step}"])
    section.figure(_overlap(record, stage, step, lost, reached))
    sizes = _cluster_sizes(record, step)
    if sizes:
        section.figure(_sizes_picture(record, step, sizes))


def _overlap(record: Record, stage: Stage, step: str, lost: int, reached: int) -> Figure:
    names = [source.name for source in record.ledger.sources] if record.ledger else []
    table = {(one, other): int(stage.counts.get(f"overlap.{one}.{other}", 0)) for one in names for other in names}
    documents = {name: int(stage.counts.get(f"of.{name}.documents", 0)) for name in names}
    names = [name for name in names if documents[name]]
    indexes = [name[len("index.") : -len(".documents")] for name in stage.counts if name.startswith("index.")]
    table |= {(one, index): int(stage.counts.get(f"overlap.{one}.{index}", 0)) for one in names for index in indexes}
    rows = tuple(
        (one, other, table[one, other], table[one, other] / documents[one])
        for one in names
        for other in [*names, *indexes]
        if table[one, other]
    )
    drawn = sorted(names, key=lambda name: -sum(n for pair, n in table.items() if name in pair))[:MOST_SOURCES]
    shown = [name for name in names if name in drawn]
    across = [*shown, *indexes[-MOST_SOURCES:]]
    most = max((table[one, other] / documents[one] for one in shown for other in across), default=0.0) or 1.0
    cells = [[_overlap_cell(one, other, table[one, other], documents[one], most) for other in across] for one in shown]
    known = int(stage.counts.get(f"drop.{step}.in_index", 0))
    of_index = f"; {known:,} more stand in {' and '.join(indexes)}" if indexes else ""
    columns = (
        Column("dropped from"), Column("the copy that stays is in"), Column("documents", "count"),
        Column("share of the documents that reached the step", "share", bar=True),
    )  # fmt: skip
    return Figure(
        f"overlap-{step}",
        f"Duplicates between sources ({step})",
        f"{lost:,} of {reached:,} documents ({share(lost / max(1, reached))}) are duplicates, in "
        f"{stage.counts['clusters']:,} clusters{of_index}. A row is a source that lost documents, a column the source "
        "of the copy that stayed; the number is the share of the row's documents, the stronger the colour the "
        "larger. The diagonal is duplicates inside a source.",
        heat_map(
            shown,
            across,
            cells,
            "Share of documents dropped by source of the copy that stays",
            ("dropped from", "stays in"),
        ),
        record.command("why", "CONTENT_ID"),
        Table(f"overlap_{step}", columns, rows),
    )


def _overlap_cell(one: str, other: str, number: int, documents: int, most: float) -> Cell:
    part = number / documents
    told = f"{number:,} of {documents:,} documents of {one} are duplicates of a document that stays in {other}"
    return Cell(share(part) if number else "", 0.12 + 0.88 * part / most if number else 0.0, told)


def _cluster_sizes(record: Record, step: str) -> list[tuple[str, int, int]]:
    """(documents of a cluster, clusters, documents in them) in powers of two, from the rows that stay of each."""
    counted: Counter[int] = Counter()
    for source in record.ledger.sources if record.ledger else ():
        for shard in source.shards:
            if any(f"cluster_size@{step}" in layer_columns(path) for path in shard.layers):
                for batch in read_layers(shard.layers, [f"cluster_size@{step}", f"drop@{step}"]):
                    stays = pc.equal(pc.fill_null(batch.column(f"drop@{step}"), 0), 0)
                    sizes = pc.filter(batch.column(f"cluster_size@{step}"), stays).drop_null()
                    counted.update(size for size in sizes.to_pylist() if size > 1)
    ranges: dict[int, list[int]] = {}
    for size, number in sorted(counted.items()):
        power = size.bit_length() - 1
        ranges.setdefault(power, [0, 0])
        ranges[power][0] += number
        ranges[power][1] += number * size
    return [(_range_name(power), clusters, documents) for power, (clusters, documents) in ranges.items()]


def _range_name(power: int) -> str:
    low, high = 2**power, 2 ** (power + 1) - 1
    return f"{low:,} or {high:,}" if power == 1 else f"{low:,} to {high:,}"


def _sizes_picture(record: Record, step: str, sizes: Sequence[tuple[str, int, int]]) -> Figure:
    bars = []
    for name, clusters, documents in sizes:
        told = f"{clusters:,} clusters of {name} documents, {documents:,} documents together"
        note = f"{several(clusters, 'cluster')}, {documents:,} documents"
        bars.append(Bar(name, (Piece(clusters, colour(0), told),), note))
    columns = (Column("documents in a cluster"), Column("clusters", "count"), Column("documents", "count"))
    return Figure(
        f"clusters-{step}",
        f"Sizes of duplicate clusters ({step})",
        "Each bar counts clusters of so many documents, of which one stays. A few very large clusters are often "
        "boilerplate, or a matching that is too loose.",
        stacked_bars(bars, "Number of clusters by size", "clusters", notes=210.0),
        record.command("curate", "--until", step),
        Table(f"clusters_{step}", columns, tuple(sizes)),
    )
