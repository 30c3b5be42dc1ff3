"""Examples of what a dedup step dropped: each document beside the one it is a duplicate of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from curation.layers import layer_columns
from curation.ledger import Ledger, scan_shard, shown_texts
from curation.passes import ShardInputs

REASONS = ("duplicate", "in_index")  # bits of the step's drop column, in order


def drops_duplicates(ledger: Ledger, step: str) -> bool:
    """Whether a step of this name has dropped documents as duplicates of others."""
    return any(_has_layer(shard, step) for source in ledger.sources for shard in source.shards[:1])


def duplicate_examples(
    ledger: Ledger, step: str, reason: str | None, number: int, source: str | None = None
) -> list[dict[str, Any]]:
    """Documents that a dedup step dropped, chosen by content, with the document that stays for each.

    Args:
        ledger: of a curated run.
        step: name of an exact or MinHash step.
        reason: `duplicate` (of a document of this run) or `in_index`; None for both.
        number: documents of each source and reason.
        source: only this source.

    Returns:
        One mapping a document: who it is, `duplicate_of` (source, shard, row), `index` where that stands in one,
        `similarity`, both texts; `other_text` is None where only an index has the other document. Memory: the ids of a
        source's rows.
    """
    shards = {(shard.source, shard.shard): shard for one in ledger.sources for shard in one.shards}
    found = []
    for name in [one.name for one in ledger.sources if source in (None, one.name)]:
        mine = [shard for shard in ledger.source(name).shards if _has_layer(shard, step)]
        for bit, word in enumerate(REASONS):
            if reason in (None, word) and mine:
                found += [_told(row, name, step, word, shards) for row in _dropped(mine, step, bit, number)]
    return found


def _has_layer(shard: ShardInputs, step: str) -> bool:
    return any(f"similarity@{step}" in layer_columns(path) for path in shard.layers)


def _dropped(shards: list[ShardInputs], step: str, bit: int, number: int) -> list[dict[str, Any]]:
    columns = [f"duplicate_{part}@{step}" for part in ("source", "shard", "row")] + [f"similarity@{step}"]
    index = f"duplicate_index@{step}"
    if any(index in layer_columns(path) for path in shards[0].layers):
        columns.append(index)
    hit = (pl.col(f"drop@{step}").cast(pl.UInt64) & pl.lit(1 << bit, pl.UInt64)) != 0
    frames = [scan_shard(shard).filter(hit).select("shard", "row", "content_id", *columns) for shard in shards]
    return pl.concat(frames).sort("content_id", "shard", "row").head(number).collect().to_dicts()


def _told(
    row: dict[str, Any], source: str, step: str, reason: str, shards: dict[tuple[str, str], ShardInputs]
) -> dict[str, Any]:
    other = [row[f"duplicate_{part}@{step}"] for part in ("source", "shard", "row")]
    there = shards.get((other[0], other[1]))
    return {
        "source": source,
        "step": step,
        "reason": reason,
        "content_id": row["content_id"].hex(),
        "shard": row["shard"],
        "row": row["row"],
        "duplicate_of": other,
        "index": row.get(f"duplicate_index@{step}"),
        "similarity": row[f"similarity@{step}"],
        "text": shown_texts(shards[source, row["shard"]], [row["row"]]).get(row["row"]),
        "other_text": None if there is None else shown_texts(there, [other[2]]).get(other[2]),
    }


def cut_most(ledger: Ledger, step: str, number: int, source: str | None = None) -> list[dict[str, Any]]:
    """Documents that a paragraph or substring step took most from: `number` of each source, the most cut first.

    One entry a document: source, shard, row, content_id, `kind` (cut), `unit` (paragraphs | characters), `removed`,
    and of its source `documents` and `removed_in_all`. A step that is none of these has none. Memory: the place and
    content id of each cut document of one source.
    """
    return [
        one
        for each in ledger.sources
        if source is None or each.name == source
        for unit in _cut_units(each.shards[:1], step)
        for one in _cut_of_source(ledger, each.name, step, unit, number)
    ]


def _cut_units(shards: Sequence[ShardInputs], step: str) -> list[str]:
    there = {name for shard in shards for path in shard.layers for name in layer_columns(path)}
    return [unit for unit in ("paragraphs", "characters") if f"{unit}_removed@{step}" in there]


def _cut_of_source(ledger: Ledger, name: str, step: str, unit: str, number: int) -> list[dict[str, Any]]:
    removed = pl.col(f"{unit}_removed@{step}").alias("removed")
    rows = ledger.scan([name]).select("source", "shard", "row", "content_id", removed).filter(pl.col("removed") > 0)
    cut = rows.with_columns(
        documents=pl.len(), removed_in_all=pl.col("removed").sum(), unit=pl.lit(unit), kind=pl.lit("cut")
    )
    order = cut.sort(["removed", "shard", "row"], descending=[True, False, False]).head(number)
    return [{**row, "content_id": row["content_id"].hex()} for row in order.collect().iter_rows(named=True)]
