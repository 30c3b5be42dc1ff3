"""How far the buckets of a perplexity step can be trusted: length, sample size, the model's order, and texts to read.

Documents come from a few shards of each source, so that a report stays cheap; memory grows with the rows of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from markupsafe import Markup

from curation.layers import layer_columns
from curation.ledger import Source, scan_shard, texts_of
from curation.perplexity.levels import level_names
from curation.perplexity.stability import by_length, by_order, by_sample_size
from recipes.report.axes import WIDTH, Scale, bottom_axis, colours, left_axis, legend, picture, tip
from recipes.report.markup import Column, Figure, Section, Table, tag
from recipes.report.record import Record

if TYPE_CHECKING:
    from curation.passes import ShardInputs

MOST_SHARDS, MOST_POINTS, MOST_SOURCES = 3, 300, 8
RESCORED, RESCORED_CHARACTERS = 200, 20_000
AT_A_BORDER, MOST_CHARACTERS = 2, 300


@dataclass(frozen=True)
class Scored:
    """Kept documents of a few shards of a source with their perplexities, in order of content id, and the cutoffs.

    rows: shard, row, content_id, perplexity, bucket, num_characters.
    """

    source: Source
    shards: tuple[ShardInputs, ...]
    rows: pl.DataFrame
    limits: tuple[float, ...]


def column_of(source: Source, name: str) -> str | None:
    """The layer column of a bare name: the name itself, or measured on a text that a step edited, the last of them."""
    known = [column for path in (source.shards[0].layers if source.shards else ()) for column in layer_columns(path)]
    found = [column for column in known if column == name or column.startswith(f"{name}@")]
    return found[-1] if found else None


def read_scored(source: Source, step: Any, limits: tuple[float, ...]) -> Scored | None:
    """The documents of a few shards, evenly over the source; None where the step did not score it."""
    column, bucket = column_of(source, f"{step.prefix}perplexity"), column_of(source, f"{step.prefix}bucket")
    if column is None or bucket is None or not limits:
        return None
    number = min(MOST_SHARDS, len(source.shards))
    shards = tuple(source.shards[place * len(source.shards) // number] for place in range(number))
    named = [pl.col(column).alias("perplexity"), pl.col(bucket).alias("bucket")]
    frames = [
        scan_shard(shard)
        .filter(pl.col("kept") & pl.col(column).is_not_null())
        .select("shard", "row", "content_id", "num_characters", *named)
        .collect()
        for shard in shards
    ]
    rows = pl.concat(frames).sort("content_id", "shard", "row")
    return Scored(source, shards, rows, limits) if rows.height else None


def add_buckets(record: Record, section: Section, step: Any, scored: Sequence[Scored]) -> None:
    """Add the scatter, the tables of stability, and documents at the borders between buckets."""
    if not scored:
        return
    section.figure(_scatter(record, step, scored[:MOST_SOURCES]))
    _add_stability(record, section, step, scored)
    _add_borders(record, section, step, scored[:MOST_SOURCES])


# ---------------------------------------------------------------- length


def _scatter(record: Record, step: Any, scored: Sequence[Scored]) -> Figure:
    hues = colours([one.source.name for one in scored])
    shown = [(one, row) for one in scored for row in one.rows.head(MOST_POINTS).to_dicts()]
    characters = [max(1, row["num_characters"]) for _, row in shown]
    values = [row["perplexity"] for _, row in shown]
    across = Scale(min(characters) * 0.9, max(characters) * 1.1 + 1, 60.0, WIDTH - 12, log=True)
    up = Scale(min(values) * 0.95, max(values) * 1.05, 330.0, 26.0, log=True)
    marks: list[Markup] = [left_axis(up, 60.0, "perplexity", across.end), bottom_axis(across, 330.0, "characters")]
    for limit in sorted({limit for one in scored for limit in one.limits}):
        if up.low < limit < up.high:
            line = {"x1": across.start, "x2": across.end, "y1": up.at(limit), "y2": up.at(limit)}
            marks.append(tag("line", tip(f"a cutoff: {limit:.5g}"), **line, class_="diagonal"))
    for (one, row), x, y in zip(shown, characters, values):
        told = (
            f"{one.source.name}: perplexity {y:.5g}, {x:,} characters, {row['bucket']}, {row['content_id'].hex()[:12]}"
        )
        marks.append(
            tag("circle", tip(told), cx=across.at(x), cy=up.at(y), r=2.4, class_=f"{hues[one.source.name]} dot")
        )
    columns = (
        Column("source"),
        Column("content id", "code"),
        Column("characters", "count"),
        Column("perplexity", "number"),
    )
    rows = tuple(
        (one.source.name, row["content_id"].hex(), row["num_characters"], row["perplexity"]) for one, row in shown
    )
    return Figure(
        f"{step.prefix}perplexity-length",
        f"Perplexity and length ({step.name})",
        f"Up to {MOST_POINTS} kept documents of each source, chosen by content. Short documents scatter: a "
        "cutoff tells less about them. Dashed lines are cutoffs.",
        legend(list(hues.items())) + picture(372.0, "Perplexity against length in characters", *marks),
        record.command("why", "CONTENT_ID"),
        Table(f"{step.prefix}perplexity_length", columns, rows, head=20),
    )


# ---------------------------------------------------------------- stability

_LENGTHS = (
    Column("source"),
    Column("from characters", "count"),
    Column("to", "count"),
    Column("documents", "count"),
    Column("head", "share", bar=True),
    Column("between", "share", bar=True),
    Column("tail", "share", bar=True),
)
_MOVES = (
    Column("source"),
    Column("what was changed"),
    Column("documents in another bucket", "share", bar=True),
    Column("cutoffs"),
    Column("rank correlation", "number"),
)


def _add_stability(record: Record, section: Section, step: Any, scored: Sequence[Scored]) -> None:
    lengths: list[tuple[object, ...]] = []
    moves: list[tuple[object, ...]] = []
    for one in scored:
        name, perplexity = one.source.name, one.rows["perplexity"].to_numpy()
        for low, high, number, shares in by_length(perplexity, one.rows["num_characters"].to_numpy(), one.limits):
            lengths.append((name, low, high, number, shares[0], sum(shares[1:-1]), shares[-1]))
        for moved in by_sample_size(perplexity, one.limits):
            what = f"cut on {moved.documents:,} of {len(perplexity):,} documents"
            moves.append((name, what, moved.share, ", ".join(f"{limit:.4g}" for limit in moved.limits), None))
        moves += _orders(record, step, one)
    section.table(
        f"Buckets by document length ({step.name})",
        Table(f"{step.prefix}buckets_by_length", _LENGTHS, tuple(lengths)),
        "Each source in quarters by length. Where the shares change much from one quarter to the next, a bucket also "
        "selects by length.",
    )
    section.table(
        f"How buckets move ({step.name})",
        Table(f"{step.prefix}buckets_moved", _MOVES, tuple(moves)),
        "The same documents, cut on a part of them (chosen by content, at the shares the buckets have), or ranked by "
        f"the model with shorter n-grams (up to {RESCORED} documents, cut at the same ranks). Up to a tenth is usual; "
        "much more means that the buckets rest on too little text, or on the model's longest n-grams.",
    )


def _orders(record: Record, step: Any, one: Scored) -> Iterator[tuple[object, ...]]:
    """Moves under the same model asked for shorter n-grams; nothing for models that kenlm scores."""
    from curation.perplexity.score import OwnModel, load_scorer

    model = _model(record, step, one.source)
    if model is None:
        return
    texts = pa.array(_texts(one, one.rows.head(RESCORED)), pa.large_string())
    whole = load_scorer(model, None, step.scoring)
    opened = whole.open()
    if not isinstance(opened, OwnModel):
        return
    known = whole.score(texts)
    valid = known.is_valid().to_numpy(zero_copy_only=False)
    if valid.sum() < 2:
        return
    for order in range(opened.model.order - 1, 0, -1):
        shorter = load_scorer(model, None, step.scoring, longest=order).score(texts)
        moved, ranks = by_order(_plain(known, valid), _plain(shorter, valid), one.limits)
        yield one.source.name, f"order {order} instead of {opened.model.order}", moved, None, ranks


def _plain(values: pa.Array, valid: np.ndarray) -> np.ndarray:
    plain: np.ndarray = values.fill_null(0.0).to_numpy(zero_copy_only=False)[valid]
    return plain


def _model(record: Record, step: Any, source: Source) -> Path | None:
    """The folder of the model of ours that scored a source, if it is still there."""
    if isinstance(step.model, str):
        return Path(step.model) if (Path(step.model) / "model.json").exists() else None
    return record.path(f"{step.name}.{source.language} model", "all.model")


def _texts(one: Scored, rows: pl.DataFrame) -> list[str]:
    """Texts of rows, as the steps left them, cut to a length that is quickly scored."""
    found: dict[tuple[str, int], str] = {}
    for shard in one.shards:
        wanted = rows.filter(pl.col("shard") == shard.shard)["row"].to_list()
        if wanted:
            found |= {(shard.shard, row): text or "" for row, text in texts_of(shard, wanted).items()}
    places = zip(rows["shard"].to_list(), rows["row"].to_list())
    return [found.get(place, "")[:RESCORED_CHARACTERS] for place in places]


# ---------------------------------------------------------------- borders


def _add_borders(record: Record, section: Section, step: Any, scored: Sequence[Scored]) -> None:
    section.parts.append(tag("h3", f"Documents at the borders of buckets ({step.name})"))
    section.say(
        f"Up to {AT_A_BORDER} documents on each side of each cutoff, the nearest to it. If a person could not say "
        "which ones are better, the cutoff lies in the middle of like documents, as it should; if those below it are "
        "bad, lower it. One document: ",
        tag("code", record.command("why", "CONTENT_ID")),
        ".",
    )
    rows: list[tuple[object, ...]] = []
    for one in scored:
        names = level_names(len(one.limits))
        for place, limit in enumerate(one.limits):
            parts = []
            near = one.rows.sort((pl.col("perplexity").log() - np.log(limit)).abs(), maintain_order=True)
            for below in (True, False):
                side = near.filter((pl.col("perplexity") < limit) == below).head(AT_A_BORDER)
                for row, text in zip(side.to_dicts(), _texts(one, side)):
                    short = " ".join(text.split())
                    short = short if len(short) <= MOST_CHARACTERS else f"{short[:MOST_CHARACTERS]}…"
                    bucket, number = row["bucket"], row["content_id"].hex()
                    rows.append((one.source.name, limit, bucket, row["perplexity"], number, short))
                    head = tag("p", tag("b", bucket), f" · {row['perplexity']:.5g} · ", tag("code", number[:12]))
                    parts.append(tag("div", head, tag("blockquote", short, dir="auto"), class_="sample borderline"))
            title = f"{one.source.name}: {names[place]} below {limit:.5g}, {names[place + 1]} from there on"
            section.parts.append(tag("details", tag("summary", title), *parts, class_="rule"))
    columns = ("source", "cutoff", "bucket", "perplexity", "content id", "text")
    kinds = ("text", "number", "text", "number", "code", "text")
    table = Table(f"{step.prefix}bucket_borders", tuple(map(Column, columns, kinds)), tuple(rows))
    section.tables.append(table)
