"""Two curated runs compared: what differs in their recipes, and which rows change sides, by source and rule.

Shards that both runs read are walked side by side in row batches. Memory: a row batch of a few columns where a shard
has the same rows in both runs; where `where` or `sample` left other rows, the columns of that one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from curation.ledger import Ledger, Source, scan_shard
from curation.passes import ShardInputs
from recipes.ledger.queries import most_first, open_ledger
from recipes.schema.resolved import differing, values_of
from recipes.tokenizing.token_rate import TokenRate, token_rates

if TYPE_CHECKING:
    from recipes.run import Run

_COLUMNS = ("row", "content_id", "num_characters", "size_bytes", "kept", "reason")
_EXAMPLES = 3  # of each direction and source
_ROWS = 65_536


def differences(one: Run, other: Run) -> dict[str, Any]:
    """What two runs made of the same rows: config, newly kept and dropped by source and reason, examples, tokens.

    Tokens are estimated from the bytes that were read of what is kept, with the rate of each run's own tokenizer; where
    one of them has none yet, with one rate for both, so that the same documents come to the same tokens.
    """
    ledgers = [open_ledger(run) for run in (one, other)]
    rates = [token_rates(run, ledger) for run, ledger in zip((one, other), ledgers)]
    shared = sorted({s.name for s in ledgers[0].sources} & {s.name for s in ledgers[1].sources})
    sources = {
        name: _source_difference(
            ledgers[0].source(name), ledgers[1].source(name), comparable(rates[0][name], rates[1][name])
        )
        for name in shared
    }
    only = [sorted({s.name for s in a.sources} - {s.name for s in b.sources}) for a, b in (ledgers, reversed(ledgers))]
    return {
        "config": differing(values_of(one.recipe), values_of(other.recipe)),
        "sources": sources,
        "only_in_first": only[0],
        "only_in_second": only[1],
    }


def comparable(one: TokenRate, other: TokenRate) -> list[TokenRate]:
    """The rates of two runs where both have a tokenizer; else one for both: that of the tokenizer there is.

    A tokenizer that is trained on samples differs from another by its samples alone, which is no change of the text.
    """
    if one.basis == other.basis == "tokenizer":
        return [one, other]
    shared = other if other.basis == "tokenizer" else one
    return [shared, shared]


@dataclass
class _Counted:
    """What has been counted of one source; lists are [first run, second run]."""

    rows: list[int] = field(default_factory=lambda: [0, 0])
    kept: list[int] = field(default_factory=lambda: [0, 0])
    characters: list[int] = field(default_factory=lambda: [0, 0])
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    newly_kept: Counter[str] = field(default_factory=Counter)
    newly_dropped: Counter[str] = field(default_factory=Counter)
    gained: list[dict[str, Any]] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)


def _source_difference(first: Source, second: Source, rates: list[TokenRate]) -> dict[str, Any]:
    counted = _Counted()
    shards = [{shard.shard: shard for shard in source.shards} for source in (first, second)]
    for name in sorted(shards[0].keys() | shards[1].keys()):
        for pair in _aligned(shards[0].get(name), shards[1].get(name)):
            _add(counted, name, pair)
    return {
        "rows": counted.rows,
        "kept": counted.kept,
        "characters": counted.characters,
        "tokens": [rate.tokens(*amount) for rate, *amount in zip(rates, counted.bytes, counted.kept)],
        "newly_kept": most_first(counted.newly_kept),
        "newly_dropped": most_first(counted.newly_dropped),
        "examples": [*counted.gained, *counted.lost],
    }


def _aligned(first: ShardInputs | None, second: ShardInputs | None) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Frames of the same rows of a shard in both runs; a row that one run did not read is not kept there."""
    frames = [None if shard is None else scan_shard(shard).select(_COLUMNS) for shard in (first, second)]
    heights = [0 if frame is None else frame.select(pl.len()).collect().item() for frame in frames]
    if frames[0] is None or frames[1] is None or heights[0] != heights[1]:
        yield _joined([_EMPTY if frame is None else frame.collect() for frame in frames])
        return
    for start in range(0, heights[0], _ROWS):
        parts = [frame.slice(start, _ROWS).collect() for frame in frames if frame is not None]
        if not parts[0].select("row", "content_id").equals(parts[1].select("row", "content_id")):
            yield _joined([frame.slice(start).collect() for frame in frames if frame is not None])
            return
        yield parts[0], parts[1]


_EMPTY = pl.DataFrame(
    schema={
        "row": pl.Int64, "content_id": pl.Binary, "num_characters": pl.Int64, "size_bytes": pl.Int64,
        "kept": pl.Boolean, "reason": pl.String,
    }
)  # fmt: skip


def _joined(frames: list[pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both frames with the rows of either, in order of (row, content id)."""
    keys = pl.concat([frame.select("row", "content_id") for frame in frames]).unique(maintain_order=True)
    keys = keys.sort("row", "content_id")
    both = [keys.join(frame, on=["row", "content_id"], how="left", maintain_order="left") for frame in frames]
    return both[0], both[1]


def _add(counted: _Counted, shard: str, pair: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    kept = [frame["kept"].fill_null(value=False) for frame in pair]
    for run, frame in enumerate(pair):
        counted.rows[run] += int(frame["kept"].is_not_null().sum())
        counted.kept[run] += int(kept[run].sum())
        chosen = frame.filter(kept[run])
        counted.characters[run] += int(chosen["num_characters"].sum() or 0)
        counted.bytes[run] += int(chosen["size_bytes"].sum() or 0)
    gained, lost = ~kept[0] & kept[1], kept[0] & ~kept[1]
    for reasons, into in ((pair[0].filter(gained), counted.newly_kept), (pair[1].filter(lost), counted.newly_dropped)):
        into.update(reason if reason is not None else "not read" for reason in reasons["reason"].to_list())
    counted.gained = _examples(counted.gained, shard, pair[0].filter(gained), kept=True)
    counted.lost = _examples(counted.lost, shard, pair[1].filter(lost), kept=False)


def _examples(known: list[dict[str, Any]], shard: str, rows: pl.DataFrame, *, kept: bool) -> list[dict[str, Any]]:
    """The rows whose content ids are least: the same ones each time."""
    found = [
        {
            "content_id": row["content_id"].hex(),
            "shard": shard,
            "row": row["row"],
            "kept": kept,
            "reason": row["reason"],
        }
        for row in rows.sort("content_id", "row").head(_EXAMPLES).to_dicts()
    ]
    return sorted([*known, *found], key=lambda one: (one["content_id"], one["shard"], one["row"]))[:_EXAMPLES]


def with_texts(found: dict[str, Any], ledger: Ledger, characters: int) -> None:
    """Add to the examples of `differences` the beginning of their texts."""
    from curation.ledger import shown_texts

    for name, source in found["sources"].items():
        shards = {shard.shard: shard for shard in ledger.source(name).shards}
        for one in source["examples"]:
            shard = shards.get(one["shard"])
            text = shown_texts(shard, [one["row"]]).get(one["row"]) if shard is not None else None
            one["text"] = None if text is None else " ".join(text[: 4 * characters].split())[:characters]
