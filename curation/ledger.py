"""The ledger: the layers of every shard side by side, one row for every row that was read.

It is a view over Parquet files, queried with polars; nothing of it is stored twice. Columns: `source, shard, row`, who
the document is (`content_id, origin_id, url, date, licence, size_bytes, num_characters, read_reason, repaired`), every
signal and decision by its layer's name, and two that are derived: `kept` and `reason` (`step.reason`, of the earliest
step that dropped the row, then the first reason by name). docs/ledger.md lists them; `VERSION` is raised when their
meaning changes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from curation.layers import drop_reasons, layer_columns
from curation.passes import ShardInputs, text_batches
from curation.source import Reader, content_checksum

VERSION = 1
# Columns that every row has, for sources of which no shard could be read.
_COLUMNS = {
    "source": pl.String, "shard": pl.String, "row": pl.Int64, "content_id": pl.Binary, "origin_id": pl.String,
    "url": pl.String, "date": pl.String, "licence": pl.String, "size_bytes": pl.Int64, "num_characters": pl.Int64,
    "read_reason": pl.String, "repaired": pl.Int32, "kept": pl.Boolean, "reason": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One source of the ledger: its shards with all their layers, and shards that were set aside."""

    name: str
    language: str
    shards: tuple[ShardInputs, ...]
    broken: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ledger:
    """The sources of one run; `until` names the step after which the run was told to stop, where steps are missing."""

    sources: tuple[Source, ...]
    until: str | None = None

    def source(self, name: str) -> Source:
        """One source by name."""
        return next(source for source in self.sources if source.name == name)

    def scan(self, names: Sequence[str] | None = None) -> pl.LazyFrame:
        """All rows of some sources, in canonical order (source, shard, row). Columns a shard lacks are null."""
        frames = [
            scan_shard(shard)
            for source in self.sources
            if names is None or source.name in names
            for shard in source.shards
        ]
        if not frames:
            return pl.LazyFrame(schema=_COLUMNS)
        return pl.concat(frames, how="diagonal_relaxed")

    def so_far(self, until: str | None = None) -> Ledger:
        """The ledger with the layers that exist: a run that stopped on the way, `until` a step, made the first ones."""
        made = tuple(replace(source, shards=tuple(map(_made, source.shards))) for source in self.sources)
        return Ledger(made, until if made != self.sources else None)

    def to_json(self) -> str:
        """The ledger's list of layers, as it is kept beside a run."""
        told = {"version": VERSION, "sources": [asdict(s) for s in self.sources]}
        stopped = {} if self.until is None else {"until": self.until}
        return json.dumps({**told, **stopped}, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Ledger:
        """Read what `to_json` wrote."""
        told = json.loads(text)
        return Ledger(tuple(_source(source) for source in told["sources"]), told.get("until"))


def _made(shard: ShardInputs) -> ShardInputs:
    missing = next((n for n, path in enumerate(shard.layers) if not Path(path).exists()), len(shard.layers))
    text = shard.text if shard.text is not None and Path(shard.text).exists() else None
    return replace(shard, layers=shard.layers[:missing], text=text)


def _source(stored: Mapping[str, Any]) -> Source:
    shards = tuple(_shard(shard) for shard in stored["shards"])
    broken = tuple((name, reason) for name, reason in stored["broken"])
    return Source(stored["name"], stored["language"], shards, broken)


def _shard(stored: Mapping[str, Any]) -> ShardInputs:
    reader = dict(stored["reader"])
    reader["fields"] = tuple((kind, column) for kind, column in reader["fields"])
    reader["brought"] = tuple(reader["brought"])
    reader["types"] = tuple((column, kind) for column, kind in reader["types"])
    return ShardInputs(
        **{
            **stored,
            "reader": Reader(**reader),
            "layers": tuple(stored["layers"]),
            "artifacts": tuple((name, path) for name, path in stored["artifacts"]),
            "as_read": tuple(stored["as_read"]) if stored.get("as_read") else None,
        }
    )


def scan_shard(shard: ShardInputs) -> pl.LazyFrame:
    """All rows of one shard with the columns of all its layers, and `source, shard, kept, reason`."""
    frames, seen = [], set[str]()
    for path in shard.layers:
        columns = [name for name in layer_columns(path) if name not in seen and name != "text"]
        seen.update(columns)
        if columns:
            frames.append(pl.scan_parquet(path).select(columns))
    rows = pl.concat(frames, how="horizontal")
    return rows.with_columns(
        source=pl.lit(shard.source), shard=pl.lit(shard.shard), reason=reason_of(shard)
    ).with_columns(kept=pl.col("reason").is_null())


def reason_of(shard: ShardInputs) -> pl.Expr:
    """Why a row was dropped: `step.reason` of the earliest step, then the first by name; null where it is kept."""
    first = pl.when(pl.col("read_reason").is_not_null()).then(pl.format("read.{}", pl.col("read_reason")))
    branches = [
        (pl.col(f"drop@{step}").cast(pl.UInt64) & pl.lit(1 << bit, pl.UInt64) != 0, f"{step}.{reason}")
        for path in shard.layers
        for step, reasons in drop_reasons(path).items()
        for bit, reason in enumerate(reasons)
    ]
    # Layers come in order of work, and steps inside a layer in the order its metadata keeps.
    chain: Any = first
    for bit_is_set, reason in branches:
        chain = chain.when(bit_is_set).then(pl.lit(reason))
    expression: pl.Expr = chain.otherwise(None)
    return expression


def lost_text(shard: ShardInputs, *, reads: bool = True) -> str:
    """Why a shard's own text is not the curated one any more, in a few words; "" where it still is.

    A file of the same size and time is trusted; one of the same size and another time is read, once a process, or
    trusted too where nothing `reads`.
    """
    if shard.as_read is None:  # a ledger of an earlier version
        return ""
    size_bytes, time_ns, checksum = shard.as_read
    try:
        status = Path(shard.path).stat()
    except OSError:
        return f"{shard.shard} is gone"
    same = status.st_size == size_bytes
    if same and reads and status.st_mtime_ns != time_ns:
        same = _checksum(shard.path, status.st_size, status.st_mtime_ns) == checksum
    return "" if same else f"{shard.shard} changed since curation"


@functools.lru_cache(maxsize=4096)
def _checksum(path: str, *_: int) -> str:
    """Checksum of a file as long as its size and time are what they are."""
    return content_checksum(path)


def shown_texts(shard: ShardInputs, rows: Sequence[int], raw: bool = True) -> dict[int, str]:
    """Texts for people to read; in the place of each that is not there any more, why."""
    if (raw or shard.text is None) and (why := lost_text(shard)):
        return dict.fromkeys(rows, f"(text no longer there: {why})")
    return texts_of(shard, rows, raw)


def texts_of(shard: ShardInputs, rows: Sequence[int], raw: bool = False) -> dict[int, str]:
    """Text of some rows of a shard, as the source brings it (`raw`) or as the steps left it. Reads the shard once.

    Nothing of a shard that changed since it was curated: other texts stand in its rows.
    """
    if (raw or shard.text is None) and lost_text(shard):
        return {}
    wanted = set(rows)
    found: dict[int, str] = {}
    for batch in text_batches(replace(shard, text=None) if raw else shard):
        numbers = batch.column("row").to_pylist()
        hits = [index for index, row in enumerate(numbers) if row in wanted]
        if hits:
            for index, text in zip(hits, batch.column("text").take(pa.array(hits)).to_pylist()):
                found[numbers[index]] = text
        if len(found) == len(wanted):
            break
    return found


def reasons_in_order(ledger: Ledger) -> dict[str, list[str]]:
    """Every step that drops, in order of work, with its reasons."""
    steps: dict[str, list[str]] = {}
    for source in ledger.sources:
        for path in source.shards[0].layers if source.shards else ():
            for step, reasons in drop_reasons(path).items():
                steps.setdefault(step, reasons)
    return steps
